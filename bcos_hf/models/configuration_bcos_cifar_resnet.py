"""Configuration of B-cos ResNets of small pictures."""

from huggingface_hub.dataclasses import strict

from .configuration_bcos import BcosConvConfigMixin
from .modeling_cifar_resnet import CifarResNetConfig


@strict
class BcosCifarResNetConfig(BcosConvConfigMixin, CifarResNetConfig):
    """CifarResNetConfig with the fields of `BcosConvConfigMixin`."""

    model_type = "bcos_cifar_resnet"
