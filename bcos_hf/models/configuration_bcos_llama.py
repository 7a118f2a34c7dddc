"""Configuration of B-cos Llama."""

from huggingface_hub.dataclasses import strict
from transformers import LlamaConfig

from .configuration_bcos import BcosDecoderConfigMixin


@strict
class BcosLlamaConfig(BcosDecoderConfigMixin, LlamaConfig):
    """LlamaConfig with the fields of `BcosDecoderConfigMixin`."""

    model_type = "bcos_llama"
