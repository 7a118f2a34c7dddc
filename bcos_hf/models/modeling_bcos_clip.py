"""B-cos CLIP with a ViT: the image tower is a B-cos network, the text tower stays, unless `convert_text` is set."""

from torch import Tensor
from transformers import CLIPForImageClassification, CLIPModel
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings

from .bcos_conversion import Roles
from .bcos_fits import Fit, clip_first_fits, clip_fits
from .configuration_bcos_clip import BcosCLIPConfig
from .modeling_bcos_clip_vision import BcosCLIPVisionEmbeddings
from .modeling_bcos_image_text import BcosImageTextMixin
from .modeling_bcos_vision import BcosImageClassifierMixin, BcosVisionModelMixin


class _BcosCLIP(BcosVisionModelMixin):
    config_class = BcosCLIPConfig
    roles = Roles(
        logits=("classifier",),
        stems=("vision_model.embeddings.patch_embedding",),
        fits=(
            *clip_first_fits(),
            *clip_fits(),
            Fit("visual_projection", ("vision_model.post_layernorm",)),
            Fit("text_projection", ("text_model.final_layer_norm",)),
        ),
    )
    twins = {CLIPVisionEmbeddings: BcosCLIPVisionEmbeddings}
    is_convolutional = False


class BcosCLIPModel(BcosImageTextMixin, _BcosCLIP, CLIPModel):
    """B-cos CLIPModel: similarities of pictures and texts."""


class BcosCLIPForImageClassification(_BcosCLIP, BcosImageClassifierMixin, CLIPForImageClassification):
    """B-cos CLIPForImageClassification: a probe on the mean patch."""

    def _base_output(self, pixel_values: Tensor, **kwargs):
        return self.vision_model(pixel_values, **kwargs)

    def _positions(self, hidden: Tensor) -> Tensor:
        return hidden[:, 1:]
