"""Configuration of B-cos DistilBERT."""

from huggingface_hub.dataclasses import strict
from transformers import DistilBertConfig

from .configuration_bcos import BcosTextConfigMixin


@strict
class BcosDistilBertConfig(BcosTextConfigMixin, DistilBertConfig):
    """DistilBertConfig with the fields of `BcosTextConfigMixin`."""

    model_type = "bcos_distilbert"
