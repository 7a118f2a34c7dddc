"""Configuration of B-cos ResNeXt."""

from huggingface_hub.dataclasses import strict

from .configuration_bcos import BcosConvConfigMixin
from .modeling_resnext import ResNeXtConfig


@strict
class BcosResNeXtConfig(BcosConvConfigMixin, ResNeXtConfig):
    """ResNeXtConfig with the fields of `BcosConvConfigMixin`."""

    model_type = "bcos_resnext"
