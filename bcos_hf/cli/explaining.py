"""What `bcos-hf explain` makes of one input, an image or a text, read as `explain-dataset` reads it, for a model of any head."""

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer

from bcos_hf.data.classifier_inputs import PictureRows, TextRows
from bcos_hf.data.image_inputs import colors_of
from bcos_hf.data.images import ImageColumns
from bcos_hf.data.text import TextColumns
from bcos_hf.models.bcos_class_names import class_names, written_class
from bcos_hf.models.bcos_explanation import Explanation
from bcos_hf.models.bcos_processors import saved_processor
from bcos_hf.models.bcos_saving import auto_class_of
from bcos_hf.models.bcos_text import token_number

from .common import of_images, processor_of


CLASSIFIERS = (
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoModelForImageClassification",
)
LANGUAGE_MODELS = ("AutoModelForMaskedLM", "AutoModelForCausalLM")


class Explainer:
    """(image file or text) -> its explanation, what to say about it, and how its figure is drawn.

    Args:
        loaded: a B-cos model. source: where it is from, with its processor.
        target: name or number of a class, text or number of a token or prompt; None: the one predicted.
        prompts: that images are compared with, by a model of images and texts.
        position: of the token whose logits are explained, for models with logits at every token.

    Raises:
        ValueError: a model that predicts nothing of one input, or an option that it does not take.
    """

    def __init__(self, loaded, source: str, target: str | None, prompts: Sequence[str], position: int | None) -> None:
        self.model, self.images, self.kind = loaded, of_images(loaded), auto_class_of(type(loaded))
        self._check(prompts, position)
        self.processor = processor_of(loaded, source)
        self.options = {"return_weights": self.images}
        names = None
        if self.images:
            self.reader = PictureRows(loaded, self.processor, ImageColumns("image", None), "explain")
            names = list(prompts) or class_names(loaded.config)
            if prompts:
                self.options |= self._prompts(source, list(prompts))
        else:
            self.reader = TextRows(loaded, self.processor, TextColumns("text", None, None), "explain")
            self.options |= {"tokenizer": self.processor} | ({} if position is None else {"position": position})
            names = class_names(loaded.config) if self.kind in CLASSIFIERS else None
        if target is not None:
            self.options["targets"] = self._token(target) if names is None else written_class(target, names)

    def _check(self, prompts: Sequence[str], position: int | None) -> None:
        compares = getattr(self.model, "zero_shot", False)
        name = type(self.model).__name__
        if self.kind not in (*CLASSIFIERS, *LANGUAGE_MODELS) and not compares:
            raise ValueError(
                f"explain: a {name} predicts nothing of an image or a text alone, so there is nothing to explain; expected a "
                "classifier, a language model with its head, or a model of images and texts."
            )
        if compares and not prompts:
            raise ValueError(f"--prompt: expected one or more, which a {name} compares images with; got none.")
        if prompts and not compares:
            raise ValueError(f"--prompt: expected none, as a {name} compares nothing with texts; got {list(prompts)}.")
        tokens = self.kind == "AutoModelForTokenClassification"
        if tokens and position is None:
            raise ValueError(
                f"--position: expected the number of a token, from 0, as a {name} has logits for each; got none."
            )
        if position is not None and not (tokens or self.kind in LANGUAGE_MODELS):
            raise ValueError(f"--position: expected none, as a {name} has one row of logits an input; got {position}.")

    def _prompts(self, source: str, prompts: list[str]) -> dict:
        tokenizer = saved_processor(AutoTokenizer, source)
        limit = getattr(getattr(self.model.config, "text_config", None), "max_position_embeddings", None)
        lengths = {"max_length": min(limit or tokenizer.model_max_length, tokenizer.model_max_length)}
        # SigLIP was trained on texts padded to their full length
        padding = "max_length" if "siglip" in self.model.config.model_type else True
        made = tokenizer(prompts, padding=padding, truncation=True, **lengths, return_tensors="pt")
        given = {name: made[name] for name in ("input_ids", "attention_mask") if name in made}
        return {**given, "prompts": prompts}

    def _token(self, text: str) -> int:
        count = self.model.config.vocab_size
        try:
            return token_number(self.processor, count, "--target", text)
        except ValueError:
            if text.isdecimal() and int(text) < count:
                return int(text)
            raise

    def __call__(self, item: Path | str) -> tuple[Explanation, str, dict]:
        """Explanation of one input, a note ('' where there is nothing to say), and options for its figure."""
        if self.images:
            pixels = self.reader.pixels(Path(item).read_bytes())
            made = self.model.explain(pixel_values=pixels[None], **self.options)
            return made, "", colors_of(self.reader.reader.processor)
        read = self.reader.read({"text": item}, 0)
        if read is None:
            raise ValueError("expected a text, got one without any token.")
        made = self.model.explain(**self.reader.inputs([read]), **self.options)
        (cut,) = self.reader.truncated
        note = "" if cut is None else f"the model reads the first {cut[0]:,} of {cut[1]:,} tokens"
        return made.merge_words(), note, {}
