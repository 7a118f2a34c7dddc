"""A model for the app, with what turns an input into tensors; which kind it is, its configuration says."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoTokenizer

from bcos_hf.data import image_processor
from bcos_hf.data.image_inputs import colors_of
from bcos_hf.models import load_saved, saved_class
from bcos_hf.models.bcos_class_names import class_names
from bcos_hf.models.bcos_processors import saved_processor


# how a class name ends -> kind; all others have to be models of images and texts
KINDS = {"ForImageClassification": "image", "ForSequenceClassification": "text"}


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode. `kind` is "image", "text" or "clip"; `processor` is None for texts, `tokenizer` for classifiers of pictures."""

    source: str
    kind: str
    model: Any
    processor: Any = None
    tokenizer: Any = None

    @property
    def labels(self) -> list[str]:
        """The names of its classes, in order."""
        return class_names(self.model.config)

    @property
    def shown(self) -> dict[str, Any]:
        """What turns its pixel_values back into colours, the `mean` and `std` of `to_picture`."""
        return colors_of(self.processor)


def load(source, bcos: bool = True) -> Loaded:
    """A Hub id or folder as a `Loaded`, on the GPU where there is one.

    Raises:
        ValueError: no classifier of pictures or texts, nor a model of both; or no B-cos model, where `bcos` says that it has to be one.
    """
    source = str(source)
    cls = saved_class(source)
    kind = next((kind for end, kind in KINDS.items() if cls.__name__.endswith(end)), "clip")
    if kind == "clip" and not hasattr(cls, "get_text_features"):
        raise ValueError(f"{source}: expected a classifier of pictures or of texts, or a model of both like CLIP, got a {cls.__name__}.")
    model = load_saved(source) if bcos else cls.from_pretrained(source).eval()
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    vision = getattr(model.config, "vision_config", model.config)
    encoding = getattr(model.config, "input_encoding", "normalized")
    processor = None if kind == "text" else image_processor(source, vision, encoding)
    return Loaded(source, kind, model, processor, None if kind == "image" else saved_processor(AutoTokenizer, source))
