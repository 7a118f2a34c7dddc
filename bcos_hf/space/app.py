"""The app: a tab for each kind of model that is given. Gradio is imported here alone, when an app is built."""

from collections.abc import Callable, Sequence
from pathlib import Path

from transformers.utils import logging

from .drawing import hint, refusal
from .examples import Examples, examples_in
from .explaining import comparison_page, picture_page, prompts_page, text_page
from .inputs import MEAN, MEGABYTES, PROMPTS, Missing
from .loading import Loaded, load


logger = logging.get_logger(__name__)

TITLE = "B-cos: why does this network decide so?"
ABOUT = """# Why does this network decide so?
A B-cos network's explanation is its own computation: the contributions of all pixels or words, and a constant, add up to the number explained."""
# in the browser alone: what the slider says is a CSS variable of the results
COVER = "cover => document.querySelectorAll('.why').forEach(result => result.style.setProperty('--cover', cover))"


def gradio():
    """The package. Raises an ImportError that says how to install it."""
    try:
        import gradio
    except ImportError as error:
        raise ImportError("bcos_hf.space: expected gradio, which is not installed: pip install 'bcos_hf[demo]'") from error
    return gradio


def answer(page: Callable[..., str], *models: Loaded) -> Callable[..., str]:
    """`page` of `models` for what the browser sends. Refusals stand in the place of the result, so that no old one stays beside a new input.

    A file is what Gradio stored in its own upload folder: it lets no other path through. Nothing but its bytes is read here.
    """

    def answered(*given) -> str:
        try:
            return page(*models, *(Path(value["path"]).read_bytes() if isinstance(value, dict) else value for value in given))
        except Missing as missing:
            return hint(str(missing))
        except ValueError as error:
            return refusal(str(error))
        except Exception:
            logger.exception("An input could not be explained.")
            return refusal("This input could not be explained; the app's log says why.")

    return answered


def _picture(gr):
    return gr.Image(label="Picture", sources=["upload", "clipboard"], height=300)


def _classes(gr, loaded: Loaded, nothing: str, *more: tuple[str, str], label: str):
    named = [(label, index) for index, label in enumerate(loaded.labels)]
    return gr.Dropdown([(nothing, -1), *more, *named], value=-1, label=label, filterable=True)


def _target(gr, loaded: Loaded):
    return _classes(gr, loaded, "the predicted class", label="Class to explain")


def _contrast(gr, loaded: Loaded):
    return _classes(gr, loaded, "(nothing)", ("the mean of all classes", MEAN), label="Rather than")


def _image(gr, loaded: Loaded, examples: Examples) -> tuple:
    return [_picture(gr), _target(gr, loaded), _contrast(gr, loaded)], examples.pictures


def _clip(gr, loaded: Loaded, examples: Examples) -> tuple:
    prompts = gr.Textbox("\n".join(examples.prompts), label=f"Prompts, one a line (at most {PROMPTS})", lines=4, max_lines=PROMPTS)
    relative = gr.Checkbox(label="Rather than the mean of the prompts")
    return [_picture(gr), prompts, relative], examples.pictures


def _text(gr, loaded: Loaded, examples: Examples) -> tuple:
    return [gr.Textbox(label="Text", lines=4, max_lines=12), _target(gr, loaded), _contrast(gr, loaded)], examples.texts


def _compare(gr, loaded: Loaded, examples: Examples) -> tuple:
    return [_picture(gr), _target(gr, loaded)], examples.pictures


# kind -> title of its tab, what makes its inputs (and the examples of the first), its page
TABS = {
    "image": ("Image", _image, picture_page),
    "clip": ("CLIP prompts", _clip, prompts_page),
    "text": ("Text", _text, text_page),
    "compare": ("Compare", _compare, comparison_page),
}


def _tab(gr, kind: str, models: tuple[Loaded, ...], examples: Examples) -> None:
    title, inputs_of, page = TABS[kind]
    with gr.Tab(title), gr.Row():
        with gr.Column(scale=2, min_width=320):
            inputs, offered = inputs_of(gr, models[0], examples)
            button = gr.Button("Explain", variant="primary")
            chosen = gr.Examples([[str(one)] for one in offered], inputs[:1], label="Examples") if offered else None
        with gr.Column(scale=5, min_width=320):
            if kind != "text":
                cover = gr.Slider(0, 1, 0.5, step=0.01, label="Overlay: the picture alone (0), both (0.5), the explanation alone (1)")
                cover.input(None, cover, js=COVER)
            result = gr.HTML(hint("Choose an example, or your own."), elem_classes="why")
    first = inputs[0]
    triggers = [button.click, *(one.input for one in inputs[1:] if not isinstance(one, gr.Textbox))]
    triggers += [first.submit] if kind == "text" else [first.change]
    told = dict(preprocess=False, trigger_mode="always_last", api_name=f"explain_{kind}")
    gr.on(triggers, answer(page, *models), inputs, result, **told)
    if kind == "text" and chosen is not None:
        chosen.load_input_event.then(answer(page, *models), inputs, result, preprocess=False, api_visibility="private")


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
                _tab(gr, kind, loaded[kind], offered)
    return demo


def serve(
    models: Sequence[str | Path], conventional: str | Path | None = None, examples: str | Path | None = None, port: int | None = None, share: bool = False
):
    """`build` and launch, until Ctrl-C; on a Space, what its app.py calls. `share` opens a public tunnel."""
    demo = build(models, conventional, examples).queue(max_size=32)
    demo.launch(server_port=port, share=share, max_file_size=f"{MEGABYTES}mb", ssr_mode=False, footer_links=["gradio"])
