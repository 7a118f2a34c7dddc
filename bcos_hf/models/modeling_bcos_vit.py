"""B-cos ViT: a class token reads the picture, or, with `head_before_pooling`, each patch is classified and the mean taken."""

from torch import Tensor
from transformers import ViTForImageClassification, ViTModel
from transformers.models.vit.modeling_vit import ViTEmbeddings

from .bcos_conversion import Roles
from .bcos_fits import Fit, attention_fits, mlp_fits
from .bcos_tokens import ConstantTokens
from .configuration_bcos_vit import BcosViTConfig
from .modeling_bcos_vision import BcosImageClassifierMixin, BcosVisionModelMixin


class BcosViTEmbeddings(ConstantTokens, ViTEmbeddings):
    """Patches, class token and positions; the latter two are constants."""


class _BcosViT(BcosVisionModelMixin):
    config_class = BcosViTConfig
    roles = Roles(
        logits=("classifier",),
        head_activations=("pooler.activation",),
        stems=("embeddings.patch_embeddings.projection", "vit.embeddings.patch_embeddings.projection"),
        fits=(
            Fit(r"(.*embeddings\.)patch_embeddings\.projection", bias_to=r"\1position_embeddings"),
            *attention_fits(r".*layers\.\d+\.", "layernorm_before", r"attention\.q_proj", r"attention\.k_proj", r"attention\.v_proj", r"attention\.o_proj"),
            Fit(r"(.*)layers\.\d+\.mlp\.fc2", then=(r"\1layernorm",), last=True),
            *mlp_fits(r".*layers\.\d+\.", "layernorm_after", r"mlp\.fc1", "mlp.activation_fn", r"mlp\.fc2"),
            Fit(r"(.*)pooler\.dense", (r"\1layernorm",), (r"\1pooler.activation",)),
            Fit(r"()classifier", (r"vit.layernorm",)),
        ),
    )
    twins = {ViTEmbeddings: BcosViTEmbeddings}
    is_convolutional = False


class BcosViTModel(_BcosViT, ViTModel):
    """B-cos ViTModel: hidden states and a pooled output."""


class BcosViTForImageClassification(_BcosViT, BcosImageClassifierMixin, ViTForImageClassification):
    """B-cos ViTForImageClassification."""

    def _positions(self, hidden: Tensor) -> Tensor:
        return hidden[:, 1:]
