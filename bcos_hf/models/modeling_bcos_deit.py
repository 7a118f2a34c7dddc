"""B-cos DeiT: a ViT with a distillation token."""

from torch import Tensor
from transformers import DeiTForImageClassification, DeiTModel
from transformers.models.deit.modeling_deit import DeiTEmbeddings

from .bcos_conversion import Roles
from .bcos_fits import Fit, attention_fits, mlp_fits
from .bcos_tokens import ConstantTokens
from .configuration_bcos_deit import BcosDeiTConfig
from .modeling_bcos_vision import BcosImageClassifierMixin, BcosVisionModelMixin


class BcosDeiTEmbeddings(ConstantTokens, DeiTEmbeddings):
    """Patches, class and distillation token and positions; all but the patches are constants."""

    special_tokens = ("cls_token", "distillation_token")


class _BcosDeiT(BcosVisionModelMixin):
    config_class = BcosDeiTConfig
    roles = Roles(
        logits=("classifier",),
        head_activations=("pooler.activation",),
        stems=("embeddings.patch_embeddings.projection", "deit.embeddings.patch_embeddings.projection"),
        fits=(
            Fit(r"(.*embeddings\.)patch_embeddings\.projection", bias_to=r"\1position_embeddings"),
            *attention_fits(r".*layers\.\d+\.", "layernorm_before", r"attention\.q_proj", r"attention\.k_proj", r"attention\.v_proj", r"attention\.o_proj"),
            Fit(r"(.*)layers\.\d+\.mlp\.fc2", then=(r"\1layernorm",), last=True),
            *mlp_fits(r".*layers\.\d+\.", "layernorm_after", r"mlp\.fc1", "mlp.activation_fn", r"mlp\.fc2"),
            Fit(r"(.*)pooler\.dense", (r"\1layernorm",), (r"\1pooler.activation",)),
            Fit(r"()classifier", (r"deit.layernorm",)),
        ),
    )
    twins = {DeiTEmbeddings: BcosDeiTEmbeddings}
    is_convolutional = False


class BcosDeiTModel(_BcosDeiT, DeiTModel):
    """B-cos DeiTModel: hidden states and a pooled output."""


class BcosDeiTForImageClassification(_BcosDeiT, BcosImageClassifierMixin, DeiTForImageClassification):
    """B-cos DeiTForImageClassification."""

    def _positions(self, hidden: Tensor) -> Tensor:
        return hidden[:, 2:]
