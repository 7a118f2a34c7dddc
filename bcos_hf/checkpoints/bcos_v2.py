"""The published checkpoints of B-cos v2 (Boehle et al., TPAMI 2024, arXiv 2306.10898; github.com/B-cos/B-cos-v2) as models of ours.

They were trained on ImageNet-1k, whose terms of access apply to them. The B-cos ones see [x, 1 - x] of pictures x in [0, 1], which are not normalised.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from transformers import PreTrainedModel
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from bcos_hf.models.modeling_bcos_convnext import BcosConvNextForImageClassification
from bcos_hf.models.modeling_bcos_densenet import BcosDenseNetForImageClassification
from bcos_hf.models.modeling_bcos_resnet import BcosResNetForImageClassification
from bcos_hf.models.modeling_bcos_resnext import BcosResNeXtForImageClassification
from bcos_hf.models.modeling_bcos_simple_vit import BcosSimpleViTForImageClassification
from bcos_hf.models.modeling_bcos_vgg import BcosVGGForImageClassification
from bcos_hf.models.modeling_simple_vit import SimpleViTForImageClassification

from . import names
from .bcos_v2_models import MODELS, RELEASE, Published
from .reading import model_of, state_of


class Family(NamedTuple):
    """The class of a family, its names' table, what is stripped of a name before that, and the fields of every configuration in it."""

    cls: type[PreTrainedModel]
    table: names.Table
    fields: dict = {}
    strip: Callable[[str], str] = names.bare


_B_COS = dict(weight_norm="unit", input_encoding="add_inverse", inner_activation="identity")
# all layers of their ConvNeXt are convolutions, so their eps is 1e-3; all its layer norms have 1e-6
_CONVNEXT = dict(bcos_eps=1e-3, layer_norm_eps=1e-6)
FAMILIES = {
    "resnet": Family(BcosResNetForImageClassification, names.RESNET, _B_COS),
    "resnext": Family(BcosResNeXtForImageClassification, names.RESNET, _B_COS),
    "densenet": Family(BcosDenseNetForImageClassification, names.DENSENET, _B_COS),
    "vgg": Family(BcosVGGForImageClassification, names.vgg([1, 1, 2, 2, 2]), _B_COS | dict(dense=True, dropout=0.0)),
    "convnext": Family(BcosConvNextForImageClassification, names.CONVNEXT, _B_COS | _CONVNEXT),
    "simple_vit": Family(BcosSimpleViTForImageClassification, names.SAME, _B_COS | dict(head_before_pooling=False)),
    "standard_vit": Family(SimpleViTForImageClassification, names.SAME, strip=str),
}


def from_bcos_v2(source: str | os.PathLike | dict[str, Tensor], name: str | None = None) -> PreTrainedModel:
    """A published model, in evaluation mode, float32; the eight `standard_...` ones are plain SimpleViTs, to be compared or B-cosified.

    Args:
        source: a name of `bcos_v2_models.MODELS` (resnet50, vitc_s_patch1_14, ...), which is downloaded; or a state dict, a file, or an https address.
        name: which model it is; None: read off the published file's name.

    Raises:
        ValueError: no name of the table; tensors that are missing, unexpected or of another shape (the message names them); a file that is damaged or
            holds other Python objects than tensors, none of which is run. OSError: no connection.
    """
    name, published = published_as(source, name)
    address = RELEASE + published.file if isinstance(source, str) and source in MODELS and not os.path.exists(source) else source
    wanted = f"B-cos v2's {name}"
    return model_from_state(published.family, dict(published.fields, num_labels=1000), state_of(address, wanted), wanted)


def published_as(source, name: str | None = None) -> tuple[str, Published]:
    """Name and entry of the table that `from_bcos_v2` takes for a source."""
    if name is None and not isinstance(source, dict):
        last = os.fspath(source).replace(os.sep, "/").rpartition("/")[2]
        name = next((known for known, published in MODELS.items() if last in (known, published.file)), None)
    if name not in MODELS:
        given = "a state dict" if isinstance(source, dict) else repr(os.fspath(source))
        got = f"{given} without a name" if name is None else f"name={name!r}"
        raise ValueError(f"from_bcos_v2: expected one of {', '.join(MODELS)}; got {got}. Give it as `name`.")
    return name, MODELS[name]


def model_from_state(family: str, fields: dict, state: dict[str, Tensor], wanted: str) -> PreTrainedModel:
    """The model of one of `FAMILIES`, with further configuration `fields`, of a state dict under their names. Raises as `from_bcos_v2`."""
    cls, table, common, strip = FAMILIES[family]
    ours, unknown = names.renamed(state, table, strip)
    return model_of(cls, cls.config_class(**common, **fields), ours, wanted, unknown)


def bcos_v2_processor(source: str | os.PathLike | dict[str, Tensor], name: str | None = None) -> ViTImageProcessorPil:
    """The image processor of a published model: the shorter side to 256 pixels (232 where it was trained long), the middle 224; values in [0, 1].

    The pictures of the `standard_...` models are normalised. Arguments and errors are those of `from_bcos_v2`.
    """
    _, published = published_as(source, name)
    size = {"size": {"shortest_edge": published.resize}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}
    standard = published.family == "standard_vit"
    return ViTImageProcessorPil(**size, do_normalize=standard, image_mean=IMAGENET_DEFAULT_MEAN, image_std=IMAGENET_DEFAULT_STD)
