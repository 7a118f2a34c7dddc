"""B-cos SigLIP: the image tower is a B-cos network, the text tower stays, unless `convert_text` is set."""

from torch import Tensor
from transformers import SiglipForImageClassification, SiglipModel

from .bcos_conversion import Roles
from .configuration_bcos_siglip import BcosSiglipConfig
from .modeling_bcos_image_text import BcosImageTextMixin
from .modeling_bcos_siglip_vision import _BcosSiglipVision, siglip_fits
from .modeling_bcos_vision import BcosImageClassifierMixin


class _BcosSiglip(_BcosSiglipVision):
    config_class = BcosSiglipConfig
    roles = Roles(logits=("classifier",), stems=("vision_model.embeddings.patch_embedding",), fits=siglip_fits())
    is_convolutional = False


class BcosSiglipModel(BcosImageTextMixin, _BcosSiglip, SiglipModel):
    """B-cos SiglipModel: similarities of pictures and texts."""

    @property
    def _embed_dim(self) -> int:
        return self.config.vision_config.hidden_size


class BcosSiglipForImageClassification(_BcosSiglip, BcosImageClassifierMixin, SiglipForImageClassification):
    """B-cos SiglipForImageClassification: a probe on the mean patch."""

    def _base_output(self, pixel_values: Tensor, **kwargs):
        return self.vision_model(pixel_values, **kwargs)

    def _positions(self, hidden: Tensor) -> Tensor:
        return hidden
