"""B-cos GPT-2."""

from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel, GPT2Model

from .configuration_bcos_gpt2 import BcosGPT2Config
from .modeling_bcos_decoder import BcosDecoderModelMixin


class _BcosGPT2(BcosDecoderModelMixin):
    config_class = BcosGPT2Config


class BcosGPT2Model(_BcosGPT2, GPT2Model):
    """B-cos GPT2Model: hidden states."""


class BcosGPT2LMHeadModel(_BcosGPT2, GPT2LMHeadModel):
    """B-cos GPT2LMHeadModel; the head is tied to the embeddings, and linear unless `config.convert_lm_head`."""


class BcosGPT2ForSequenceClassification(_BcosGPT2, GPT2ForSequenceClassification):
    """B-cos GPT2ForSequenceClassification: a text's last token is classified."""
