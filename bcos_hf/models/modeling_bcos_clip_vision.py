"""The image tower of B-cos CLIP, alone."""

from torch import Tensor
from transformers import CLIPVisionModel, CLIPVisionModelWithProjection
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings

from .bcos_conversion import Roles
from .bcos_fits import Fit, clip_first_fits, clip_fits
from .bcos_tokens import ConstantEmbeddings
from .configuration_bcos_clip import BcosCLIPVisionConfig
from .modeling_bcos_image_text import BcosImageEmbeddingMixin
from .modeling_bcos_vision import BcosVisionModelMixin


class BcosCLIPVisionEmbeddings(ConstantEmbeddings, CLIPVisionEmbeddings):
    """Patches, class token and positions; the latter two are constants."""


class _BcosCLIPVision(BcosVisionModelMixin):
    config_class = BcosCLIPVisionConfig
    roles = Roles(
        stems=("embeddings.patch_embedding", "vision_model.embeddings.patch_embedding"),
        fits=(
            *clip_first_fits(),
            *clip_fits(),
            Fit("visual_projection", ("vision_model.post_layernorm",)),
        ),
    )
    twins = {CLIPVisionEmbeddings: BcosCLIPVisionEmbeddings}


class BcosCLIPVisionModel(_BcosCLIPVision, CLIPVisionModel):
    """B-cos CLIPVisionModel: hidden states and the class token's."""


class BcosCLIPVisionModelWithProjection(BcosImageEmbeddingMixin, _BcosCLIPVision, CLIPVisionModelWithProjection):
    """B-cos CLIPVisionModelWithProjection: the image embedding."""

    def image_embeds(self, pixel_values: Tensor, **inputs) -> Tensor:
        """Embeddings [N, D] of pictures [N, C, H, W], not normalised."""
        return self(pixel_values=pixel_values, **inputs).image_embeds
