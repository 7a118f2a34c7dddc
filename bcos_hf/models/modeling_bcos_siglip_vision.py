"""The image tower of B-cos SigLIP, alone."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SiglipVisionModel
from transformers import initialization as init
from transformers.models.siglip.modeling_siglip import SiglipMultiheadAttentionPoolingHead, SiglipVisionEmbeddings

from .bcos_conversion import Roles
from .bcos_dynamic import Dynamic
from .bcos_fits import Fit, clip_fits
from .bcos_tokens import ConstantEmbeddings
from .configuration_bcos_siglip import BcosSiglipVisionConfig
from .modeling_bcos_image_text import BcosImageEmbeddingMixin
from .modeling_bcos_vision import BcosVisionModelMixin


class BcosSiglipVisionEmbeddings(ConstantEmbeddings, SiglipVisionEmbeddings):
    """Patches and positions; the latter are a constant."""


class BcosMultiheadAttention(Dynamic, nn.MultiheadAttention):
    """nn.MultiheadAttention, batch first, linear in its values: queries and keys are constant in explanations; query [N, T, D], key, value [N, S, D]."""

    def complete(self) -> None:
        """Make the output projection an ordinary linear layer, which the conversion knows."""
        self.out_proj.__class__ = nn.Linear

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **kwargs) -> tuple[Tensor, None]:
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        made = [F.linear(x, weight, bias) for x, weight, bias in zip((query, key, value), self.in_proj_weight.chunk(3), biases, strict=True)]
        made = [made[0].detach(), made[1].detach(), self.with_constant(made[2], biases[2])] if self.explaining else made
        heads = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in made)
        pooled = F.scaled_dot_product_attention(*heads, dropout_p=self.dropout if self.training else 0.0)
        return self.out_proj(pooled.transpose(1, 2).flatten(2)), None


def siglip_fits() -> tuple[Fit, ...]:
    """Of both towers, and of the head that pools the image's patches by attention."""
    return (
        *clip_fits(),
        Fit(r"(.*)head\.attention", (r"\1post_layernorm",)),
        Fit(r"(.*)head\.attention\.out_proj"),
        Fit(r"(.*head\.)mlp\.fc1", (r"\1layernorm",), (r"\1mlp.activation_fn",)),
        Fit(r"(.*head\.)mlp\.fc2"),
        Fit(r"(text_model\.)head", (r"\1final_layer_norm",)),
    )


class _BcosSiglipVision(BcosVisionModelMixin):
    config_class = BcosSiglipVisionConfig
    roles = Roles(stems=("embeddings.patch_embedding",), fits=siglip_fits())
    twins = {SiglipVisionEmbeddings: BcosSiglipVisionEmbeddings, nn.MultiheadAttention: BcosMultiheadAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, SiglipMultiheadAttentionPoolingHead):  # transformers' initialisation asks for the biases
            init.xavier_uniform_(module.probe)
        else:
            super()._init_weights(module)


class BcosSiglipVisionModel(BcosImageEmbeddingMixin, _BcosSiglipVision, SiglipVisionModel):
    """B-cos SiglipVisionModel: hidden states and the image embedding."""

    @property
    def _embed_dim(self) -> int:
        return self.config.hidden_size

    def image_embeds(self, pixel_values: Tensor, **inputs) -> Tensor:
        """Embeddings [N, D] of pictures [N, C, H, W], not normalised."""
        return self(pixel_values=pixel_values, **inputs).pooler_output
