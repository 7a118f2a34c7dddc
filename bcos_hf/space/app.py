"""The app: a tab for each kind of model that is given. Gradio is imported here alone, when an app is built."""

from collections.abc import Sequence
from pathlib import Path

from .examples import examples_in
from .inputs import MEGABYTES
from .loading import load
from .tabs import TABS, tab


TITLE = "B-cos: why does this network decide so?"
ABOUT = """# Why does this network decide so?
A B-cos network's explanation is its own computation: the contributions of all pixels or words, and a constant, add up to the number explained."""
# the result is part of the page that the theme paints
CSS = ".why .bcos{max-width:none;padding:0;background:none}"


def gradio():
    """The package. Raises an ImportError that says how to install it."""
    try:
        import gradio
    except ImportError as error:
        raise ImportError("bcos_hf.space: expected gradio, which is not installed: pip install 'bcos_hf[demo]'") from error
    return gradio


def build(models: Sequence[str | Path], conventional: str | Path | None = None, examples: str | Path | None = None):
    """A `gradio.Blocks` for B-cos models, at most one a kind: of pictures, of texts, of both.

    Args:
        models: Hub ids or folders. conventional: an ordinary classifier of pictures with the classes of the B-cos one, to compare with.
        examples: a folder of pictures, texts.txt and prompts.txt, see `examples_in`.

    Raises:
        ValueError: no model or two of one kind, one that is no B-cos model, a conventional model of other classes. ImportError: no gradio.
    """
    gr = gradio()
    loaded = {one.kind: (one,) for one in map(load, models)}
    if not loaded or len(loaded) != len(models):
        raise ValueError(f"models: expected one or more, each of another kind (image, clip, text), got {[str(source) for source in models]}.")
    if conventional is not None:
        rival = load(conventional, bcos=False)
        if "image" not in loaded or rival.kind != "image" or sorted(rival.labels) != sorted(loaded["image"][0].labels):
            raise ValueError(f"conventional: expected a classifier of pictures with the classes of the B-cos one, got {rival.source}.")
        loaded["compare"] = (*loaded["image"], rival)
    offered = examples_in(examples, [str(source) for source in models])
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as demo:
        gr.Markdown(ABOUT)
        for kind in TABS:
            if kind in loaded:
                tab(gr, kind, loaded[kind], offered)
    return demo


def serve(
    models: Sequence[str | Path], conventional: str | Path | None = None, examples: str | Path | None = None, port: int | None = None, share: bool = False
):
    """`build` and launch, until Ctrl-C; on a Space, what its app.py calls. `share` opens a public tunnel."""
    demo = build(models, conventional, examples).queue(max_size=32)
    demo.launch(server_port=port, share=share, max_file_size=f"{MEGABYTES}mb", ssr_mode=False, footer_links=["gradio"], css=CSS)
