"""Configurations of B-cos CLIP, both towers and the image tower alone."""

from huggingface_hub.dataclasses import strict
from transformers import CLIPConfig, CLIPVisionConfig

from .configuration_bcos import BcosImageTextConfigMixin, BcosVisionConfigMixin


@strict
class BcosCLIPVisionConfig(BcosVisionConfigMixin, CLIPVisionConfig):
    """CLIPVisionConfig with the fields of `BcosVisionConfigMixin`."""

    model_type = "bcos_clip_vision_model"


@strict
class BcosCLIPConfig(BcosImageTextConfigMixin, CLIPConfig):
    """CLIPConfig with the fields of `BcosImageTextConfigMixin`."""

    model_type = "bcos_clip"
