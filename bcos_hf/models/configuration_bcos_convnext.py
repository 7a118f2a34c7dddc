"""Configuration of B-cos ConvNext."""

from huggingface_hub.dataclasses import strict
from transformers import ConvNextConfig

from .configuration_bcos import BcosConvConfigMixin


@strict
class BcosConvNextConfig(BcosConvConfigMixin, ConvNextConfig):
    """ConvNextConfig with the fields of `BcosConvConfigMixin`.

    Attributes:
        norm_layer: "layer_norm", or "batch_norm" for batch norms that subtract no mean in place of all layer norms (B-cos v2's 'BNU').
    """

    model_type = "bcos_convnext"

    norm_layer: str = "layer_norm"
