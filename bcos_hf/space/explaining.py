"""From a model and what a visitor gave to the page that the app shows, without gradio. Inputs are checked; a ValueError says what is wrong with one."""

from dataclasses import replace
from html import escape

from torch import Tensor

from bcos_hf.metrics import class_embeddings
from bcos_hf.models.bcos_explanation import Explanation
from bcos_hf.models.bcos_text import positions_of
from bcos_hf.visualization import text_to_html
from bcos_hf.visualization.image_reading import ImageReading, read_image
from bcos_hf.visualization.page import equation, facts, legend
from bcos_hf.visualization.reading import signed, visible

from .comparing import RIVALS
from .drawing import gallery, layered
from .inputs import MEAN, checked_class, checked_picture, checked_prompts, checked_text
from .loading import Loaded


SCALED = "Orange speaks for, blue against. Each map is scaled on its own: full colour is its own strongest contribution."


def pixels(loaded: Loaded, content: bytes | None) -> Tensor:
    """The picture in a file's content as pixel_values [1, 3, H, W] on the model's device."""
    return loaded.processor(checked_picture(content), return_tensors="pt")["pixel_values"].to(loaded.model.device)


def read(loaded: Loaded, made: Explanation, target: int = 0) -> ImageReading:
    """The arrays of one target of one picture."""
    return read_image(made, 0, target, **loaded.shown)


def _plain(text: str) -> str:
    return escape(visible(text))


def _sum(reading: ImageReading) -> str:
    """The equation of a reading in words."""
    return " ".join(f"{words} {number}" for words, number in reading.equation())


def most_probable(made: Explanation, count: int = 5) -> str:
    """The classes with the largest logits, in words."""
    numbers = made.logits[0].topk(min(count, made.logits.shape[1]))
    return " · ".join(f"{made.labels[i]} {signed(v, '.2f')}" for v, i in zip(numbers.values.tolist(), numbers.indices.tolist(), strict=True))


def classes(loaded: Loaded, target: int | None, contrast: int | str | None = None) -> dict:
    """Checked targets and contrast of `explain`. Raises a ValueError for a class that is held against itself."""
    made = {"targets": checked_class(target, len(loaded.labels)), "contrast": checked_class(contrast, len(loaded.labels), (MEAN,))}
    if made["targets"] is not None and made["targets"] == made["contrast"]:
        raise ValueError("Expected two different classes to explain one rather than the other.")
    return made


def picture_page(loaded: Loaded, content: bytes | None, target: int | None = None, contrast: int | str | None = None) -> str:
    """Why a picture is of class `target` (None: the predicted one), rather than `contrast`: a class, or MEAN."""
    made = loaded.model.explain(pixels(loaded, content), **classes(loaded, target, contrast))
    reading = read(loaded, made)
    figures = [layered(reading.picture, None, "Picture", "as the model sees it", "the picture")]
    if reading.colours is not None:
        words = "the colours that the weights look for, where they speak for the class"
        figures.append(layered(reading.picture, reading.colours, "Colour explanation", words, "colour explanation"))
    figures.append(layered(reading.picture, reading.signed, "Contributions", "orange speaks for the class, blue against it", "contributions"))
    likely = f"<p>Largest logits: <bdi>{_plain(most_probable(made))}</bdi></p>"
    return gallery(figures, facts(reading), legend(reading.peak) + equation(reading) + likely)


def text_page(loaded: Loaded, text: str | None, target: int | None = None, contrast: int | str | None = None) -> str:
    """Why a text is of class `target`, by its words; what is longer than the model reads is cut off, and the page says so."""
    text = checked_text(text)
    room = min(loaded.tokenizer.model_max_length, positions_of(loaded.model.base_model))
    given = loaded.tokenizer(text, return_tensors="pt", truncation=True, max_length=room)
    made = loaded.model.explain(**given, **classes(loaded, target, contrast), tokenizer=loaded.tokenizer, return_weights=False).merge_words()
    seen, whole = given["input_ids"].shape[1], len(loaded.tokenizer(text, verbose=False)["input_ids"])
    title = f"The model reads the first {seen:,} of {whole:,} tokens" if seen < whole else None
    return text_to_html(made, title=title, fragment=True)


def prompts_page(loaded: Loaded, content: bytes | None, prompts: str | None, relative: bool = False) -> str:
    """One map for each line of `prompts`: what makes its cosine with the picture, or with `relative` what makes it more than the mean over the prompts."""
    given, prompts = pixels(loaded, content), checked_prompts(prompts)
    embeds = class_embeddings(loaded.model, loaded.tokenizer, [[prompt] for prompt in prompts])
    contrast = MEAN if relative and len(prompts) > 1 else None
    everyone = [list(range(len(prompts)))]
    made = loaded.model.explain(given, text_embeds=embeds, targets=everyone, contrast=contrast, prompts=prompts, return_weights=False)
    readings = [read(loaded, made, number) for number in range(len(prompts))]
    figures = [layered(readings[0].picture, None, "Picture", "as the model sees it", "the picture")]
    figures += [layered(one.picture, one.signed, one.explained.name, _sum(one), f"map of {one.explained.name}") for one in readings]
    best = readings[0].predicted
    fits = f"<p>Fits best: <b>{_plain(best.name)}</b>, {_plain(str(best))}. {SCALED}</p>"
    return gallery(figures, foot=fits)


def comparison_page(loaded: Loaded, conventional: Loaded, content: bytes | None, target: int | None = None) -> str:
    """The B-cos model's explanation beside post-hoc ones of the conventional model, for one class, and how much of the logit each accounts for."""
    made = loaded.model.explain(pixels(loaded, content), **classes(loaded, target))
    number = int(made.targets[0, 0])
    reading = read(loaded, made)
    figures = [layered(reading.picture, None, "Picture", f"class explained: {visible(loaded.labels[number])}", "the picture")]
    figures.append(layered(reading.picture, reading.signed, "B-cos contributions", _sum(reading), "B-cos contributions"))
    given = pixels(conventional, content)
    theirs = conventional.labels.index(loaded.labels[number])
    for name, (explain, adds_up) in RIVALS.items():
        rival = explain(conventional.model, given, theirs)
        if rival is not None:
            one = read(conventional, replace(rival, labels=conventional.labels, pixel_values=given))
            figures.append(layered(one.picture, one.signed, f"{name}, conventional model", _sum(one) if adds_up else "says where, not how much", name))
    words = "The residual is what a method leaves unexplained of the logit: of B-cos rounding, of integrated gradients the error of so few steps."
    return gallery(figures, foot=f"<p>{words} {SCALED}</p>")
