"""Configuration of B-cos RoBERTa."""

from huggingface_hub.dataclasses import strict
from transformers import RobertaConfig

from .configuration_bcos import BcosTextConfigMixin


@strict
class BcosRobertaConfig(BcosTextConfigMixin, RobertaConfig):
    """RobertaConfig with the fields of `BcosTextConfigMixin`."""

    model_type = "bcos_roberta"
