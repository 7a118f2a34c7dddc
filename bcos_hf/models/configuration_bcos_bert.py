"""Configuration of B-cos BERT."""

from huggingface_hub.dataclasses import strict
from transformers import BertConfig

from .configuration_bcos import BcosTextConfigMixin


@strict
class BcosBertConfig(BcosTextConfigMixin, BertConfig):
    """BertConfig with the fields of `BcosTextConfigMixin`."""

    model_type = "bcos_bert"
