"""Configuration of B-cos ResNet."""

from huggingface_hub.dataclasses import strict
from transformers import ResNetConfig

from .configuration_bcos import BcosConvConfigMixin


@strict
class BcosResNetConfig(BcosConvConfigMixin, ResNetConfig):
    """ResNetConfig with the fields of `BcosConvConfigMixin`."""

    model_type = "bcos_resnet"
