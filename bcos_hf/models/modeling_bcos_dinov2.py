"""B-cos DINOv2. Its classifier reads the class token beside the mean patch; with `head_before_pooling`, the class token beside each patch."""

import torch
from torch import Tensor
from transformers import Dinov2Backbone, Dinov2ForImageClassification, Dinov2Model
from transformers.models.dinov2.modeling_dinov2 import Dinov2Embeddings

from .bcos_conversion import Roles
from .bcos_fits import Fit, attention_fits, gated_mlp_fits, mlp_fits
from .bcos_tokens import ConstantTokens
from .configuration_bcos_dinov2 import BcosDinov2Config
from .modeling_bcos_vision import BcosImageClassifierMixin, BcosVisionModelMixin


class BcosDinov2Embeddings(ConstantTokens, Dinov2Embeddings):
    """Patches, class token and positions; the latter two are constants."""


class _BcosDinov2(BcosVisionModelMixin):
    config_class = BcosDinov2Config
    roles = Roles(
        logits=("classifier",),
        stems=("embeddings.patch_embeddings.projection", "dinov2.embeddings.patch_embeddings.projection"),
        fits=(
            Fit(r"(.*embeddings\.)patch_embeddings\.projection", bias_to=r"\1position_embeddings"),
            *attention_fits(r".*layer\.\d+\.", "norm1", r"attention\.q_proj", r"attention\.k_proj", r"attention\.v_proj", r"attention\.o_proj"),
            *mlp_fits(r".*layer\.\d+\.", "norm2", r"mlp\.fc1", "mlp.activation_fn", r"mlp\.fc2"),
            *gated_mlp_fits(r".*layer\.\d+\.", "norm2"),
            Fit(r"()classifier", ("dinov2.layernorm",)),
        ),
    )
    twins = {Dinov2Embeddings: BcosDinov2Embeddings}
    is_convolutional = False


class BcosDinov2Model(_BcosDinov2, Dinov2Model):
    """B-cos Dinov2Model: hidden states and the class token."""


class BcosDinov2Backbone(_BcosDinov2, Dinov2Backbone):
    """B-cos Dinov2Backbone: feature maps."""


class BcosDinov2ForImageClassification(_BcosDinov2, BcosImageClassifierMixin, Dinov2ForImageClassification):
    """B-cos Dinov2ForImageClassification."""

    def _positions(self, hidden: Tensor) -> Tensor:
        patches = hidden[:, 1:]
        return torch.cat([hidden[:, :1].expand_as(patches), patches], dim=-1)
