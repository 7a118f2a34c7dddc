"""Configuration of B-cos DenseNet."""

from huggingface_hub.dataclasses import strict

from .configuration_bcos import BcosConvConfigMixin
from .modeling_densenet import DenseNetConfig


@strict
class BcosDenseNetConfig(BcosConvConfigMixin, DenseNetConfig):
    """DenseNetConfig with the fields of `BcosConvConfigMixin`."""

    model_type = "bcos_densenet"
