"""Configuration of B-cos Dinov2."""

from huggingface_hub.dataclasses import strict
from transformers import Dinov2Config

from .configuration_bcos import BcosVisionConfigMixin


@strict
class BcosDinov2Config(BcosVisionConfigMixin, Dinov2Config):
    """Dinov2Config with the fields of `BcosVisionConfigMixin`."""

    model_type = "bcos_dinov2"
