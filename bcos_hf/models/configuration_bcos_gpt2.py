"""Configuration of B-cos GPT-2."""

from huggingface_hub.dataclasses import strict
from transformers import GPT2Config

from .configuration_bcos import BcosDecoderConfigMixin


@strict
class BcosGPT2Config(BcosDecoderConfigMixin, GPT2Config):
    """GPT2Config with the fields of `BcosDecoderConfigMixin`."""

    model_type = "bcos_gpt2"
