"""Configuration of B-cos ViT."""

from huggingface_hub.dataclasses import strict
from transformers import ViTConfig

from .configuration_bcos import BcosVisionConfigMixin


@strict
class BcosViTConfig(BcosVisionConfigMixin, ViTConfig):
    """ViTConfig with the fields of `BcosVisionConfigMixin`."""

    model_type = "bcos_vit"
