"""B-cos Llama. In its gated MLP, act(gate) * up, the whole of act(gate) is a dynamic factor, so that contributions are complete."""

import torch
from torch import Tensor
from transformers import AutoModel, LlamaForCausalLM, LlamaForSequenceClassification, LlamaModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from .bcos_conversion import Roles
from .bcos_dynamic import Dynamic, carry
from .bcos_fits import Fit, gated_mlp_fits
from .bcos_precision import wide
from .configuration_bcos_llama import BcosLlamaConfig
from .modeling_bcos_decoder import BcosDecoderModelMixin


class BcosLlamaRMSNorm(Dynamic, LlamaRMSNorm):
    """Root mean square norm over the last dimension; x [..., D]."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if not self.explaining:
            return y
        scaled = wide(x) * self.weight
        with torch.no_grad():
            factor = (y / scaled).masked_fill_(scaled == 0, 0)  # of the very y, which transformers rounds to float32 on the way
        return carry(y, (scaled * factor).to(y.dtype))


class _BcosLlama(BcosDecoderModelMixin):
    config_class = BcosLlamaConfig
    roles = Roles(
        logits=("score",),
        fits=(
            Fit(r"(.*layers\.\d+\.)self_attn\.[qkv]_proj", (r"\1input_layernorm",)),  # keys too: positions turn what is added to them
            Fit(r"(.*layers\.\d+\.)self_attn\.o_proj", stream=r"\1input_layernorm"),
            *gated_mlp_fits(r".*layers\.\d+\.", "post_attention_layernorm"),
            Fit("score", ("model.norm",)),
            Fit("lm_head", left="a linear layer without a bias, as in the standard model"),
        ),
    )
    twins = {LlamaRMSNorm: BcosLlamaRMSNorm}


class BcosLlamaModel(_BcosLlama, LlamaModel):
    """B-cos LlamaModel: hidden states."""


class BcosLlamaForCausalLM(_BcosLlama, LlamaForCausalLM):
    """B-cos LlamaForCausalLM; the head is linear unless `config.convert_lm_head`."""


class BcosLlamaForSequenceClassification(_BcosLlama, LlamaForSequenceClassification):
    """B-cos LlamaForSequenceClassification: a text's last token is classified."""

    def __init__(self, config, *args, **kwargs) -> None:
        AutoModel.register(type(config), BcosLlamaModel, exist_ok=True)  # transformers makes the base model of this head by it, without bcos_hf as well
        super().__init__(config, *args, **kwargs)
