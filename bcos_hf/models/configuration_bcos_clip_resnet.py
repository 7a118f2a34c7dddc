"""Configurations of B-cos CLIP with a residual network, both towers and the image tower alone."""

from dataclasses import dataclass

from huggingface_hub.dataclasses import strict

from .configuration_bcos import BcosImageTextConfigMixin, BcosVisionConfigMixin
from .modeling_clip_resnet import CLIPResNetConfig
from .modeling_clip_resnet_vision import CLIPResNetVisionConfig


@dataclass(repr=False, kw_only=True)
class PositionsMixin:
    """One more field.

    Attributes:
        keep_positions: keep the position embeddings of the attention pool, as a constant; as published they go, as biases do.
    """

    keep_positions: bool = False


@strict
class BcosCLIPResNetVisionConfig(BcosVisionConfigMixin, PositionsMixin, CLIPResNetVisionConfig):
    """CLIPResNetVisionConfig with the fields of `BcosVisionConfigMixin`."""

    model_type = "bcos_clip_resnet_vision_model"


@strict
class BcosCLIPResNetConfig(BcosImageTextConfigMixin, PositionsMixin, CLIPResNetConfig):
    """CLIPResNetConfig with the fields of `BcosImageTextConfigMixin`."""

    model_type = "bcos_clip_resnet"
