"""Configuration of B-cos DeiT."""

from huggingface_hub.dataclasses import strict
from transformers import DeiTConfig

from .configuration_bcos import BcosVisionConfigMixin


@strict
class BcosDeiTConfig(BcosVisionConfigMixin, DeiTConfig):
    """DeiTConfig with the fields of `BcosVisionConfigMixin`."""

    model_type = "bcos_deit"
