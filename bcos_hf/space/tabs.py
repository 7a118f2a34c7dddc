"""The tabs of the app: what each asks for, and the page that answers. `gr` is the gradio package, which `app` alone imports."""

from collections.abc import Callable

from transformers.utils import logging

from .drawing import hint, refusal
from .examples import Examples
from .explaining import comparison_page, picture_page, prompts_page, text_page
from .inputs import MEAN, PROMPTS, Missing, uploaded
from .loading import Loaded


logger = logging.get_logger(__name__)

# in the browser alone: what the slider says is a CSS variable of the result beside it
COVER = "cover => document.getElementById('%s').style.setProperty('--cover', cover)"


def answer(page: Callable[..., str], *models: Loaded, folder: str | None = None) -> Callable[..., str]:
    """`page` of `models` for what the browser sends. Refusals stand in the place of the result, so that no old one stays beside a new input.

    `folder` is where Gradio stores uploads, for pages whose first input is a picture.
    """

    def answered(*given) -> str:
        try:
            first, *others = given
            return page(*models, first if folder is None else uploaded(first, folder), *others)
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
    picture = _picture(gr)
    prompts = gr.Textbox("\n".join(examples.prompts), label=f"Prompts, one a line (at most {PROMPTS})", lines=4, max_lines=PROMPTS)
    relative = gr.Checkbox(label="Rather than the mean of the prompts")
    return [picture, prompts, relative], examples.pictures


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


def tab(gr, kind: str, models: tuple[Loaded, ...], examples: Examples) -> None:
    """One tab within the Blocks that is open."""
    title, inputs_of, page = TABS[kind]
    with gr.Tab(title), gr.Row():
        with gr.Column(scale=2, min_width=320):
            inputs, offered = inputs_of(gr, models[0], examples)
            button = gr.Button("Explain", variant="primary")
            chosen = gr.Examples([[str(one)] for one in offered], inputs[:1], label="Examples") if offered else None
        with gr.Column(scale=5, min_width=320):
            if kind != "text":
                cover = gr.Slider(0, 1, 0.5, step=0.01, label="Overlay: the picture alone (0), both (0.5), the explanation alone (1)")
                cover.input(None, cover, js=COVER % f"why-{kind}")
            result = gr.HTML(hint("Choose an example, or your own."), elem_id=f"why-{kind}", elem_classes="why")
    first = inputs[0]
    triggers = [button.click, *(one.input for one in inputs[1:] if not isinstance(one, gr.Textbox))]
    triggers += [first.submit] if kind == "text" else [first.change]
    explain = answer(page, *models, folder=None if kind == "text" else gr.utils.get_upload_folder())
    # without preprocessing, as Gradio's would open a picture before it is checked
    gr.on(triggers, explain, inputs, result, preprocess=False, trigger_mode="always_last", api_name=f"explain_{kind}")
    if kind == "text" and chosen is not None:
        chosen.load_input_event.then(explain, inputs, result, preprocess=False, api_visibility="private")
