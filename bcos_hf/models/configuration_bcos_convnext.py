"""Configuration of B-cos ConvNext."""

from huggingface_hub.dataclasses import strict
from transformers import ConvNextConfig

from .configuration_bcos import BcosConvConfigMixin


@strict
class BcosConvNextConfig(BcosConvConfigMixin, ConvNextConfig):
    """ConvNextConfig with the fields of `BcosConvConfigMixin`."""

    model_type = "bcos_convnext"
