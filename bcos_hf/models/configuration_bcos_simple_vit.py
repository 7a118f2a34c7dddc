"""Configuration of B-cos SimpleViT."""

from huggingface_hub.dataclasses import strict

from .configuration_bcos import BcosConvConfigMixin
from .modeling_simple_vit import SimpleViTConfig


@strict
class BcosSimpleViTConfig(BcosConvConfigMixin, SimpleViTConfig):
    """SimpleViTConfig with the fields of `BcosConvConfigMixin`."""

    model_type = "bcos_simple_vit"
