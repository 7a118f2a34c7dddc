"""Configurations of B-cos SigLIP, both towers and the image tower alone."""

from huggingface_hub.dataclasses import strict
from transformers import SiglipConfig, SiglipVisionConfig

from .configuration_bcos import BcosImageTextConfigMixin, BcosVisionConfigMixin


@strict
class BcosSiglipVisionConfig(BcosVisionConfigMixin, SiglipVisionConfig):
    """SiglipVisionConfig with the fields of `BcosVisionConfigMixin`."""

    model_type = "bcos_siglip_vision_model"


@strict
class BcosSiglipConfig(BcosImageTextConfigMixin, SiglipConfig):
    """SiglipConfig with the fields of `BcosImageTextConfigMixin`."""

    model_type = "bcos_siglip"
