"""B-cos GPT-2."""

from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel, GPT2Model

from .bcos_conversion import Roles
from .bcos_fits import TIED, Fit, mlp_fits
from .configuration_bcos_gpt2 import BcosGPT2Config
from .modeling_bcos_decoder import BcosDecoderModelMixin


class _BcosGPT2(BcosDecoderModelMixin):
    config_class = BcosGPT2Config
    roles = Roles(
        logits=("score",),
        fits=(
            Fit(r"(.*h\.\d+\.)attn\.c_attn", (r"\1ln_1",)),
            Fit(r"(.*h\.\d+\.)attn\.c_proj", stream=r"\1ln_1"),
            Fit(r"(.*)h\.\d+\.mlp\.c_proj", then=(r"\1ln_f",), last=True),
            *mlp_fits(r".*h\.\d+\.", "ln_2", r"mlp\.c_fc", "mlp.act", r"mlp\.c_proj"),
            Fit("score", ("transformer.ln_f",)),
            Fit("lm_head", left=TIED),
        ),
    )


class BcosGPT2Model(_BcosGPT2, GPT2Model):
    """B-cos GPT2Model: hidden states."""


class BcosGPT2LMHeadModel(_BcosGPT2, GPT2LMHeadModel):
    """B-cos GPT2LMHeadModel; the head is tied to the embeddings, and linear unless `config.convert_lm_head`."""


class BcosGPT2ForSequenceClassification(_BcosGPT2, GPT2ForSequenceClassification):
    """B-cos GPT2ForSequenceClassification: a text's last token is classified."""
