"""Configuration of B-cos VGG."""

from huggingface_hub.dataclasses import strict

from .configuration_bcos import BcosConvConfigMixin
from .modeling_vgg import VGGConfig


@strict
class BcosVGGConfig(BcosConvConfigMixin, VGGConfig):
    """VGGConfig with the fields of `BcosConvConfigMixin`."""

    model_type = "bcos_vgg"
