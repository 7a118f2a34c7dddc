"""B-cos CLIP with a residual network, as published (Arya et al., NeurIPS 2024); the text tower stays, unless `convert_text` is set."""

from .configuration_bcos_clip_resnet import BcosCLIPResNetConfig
from .modeling_bcos_clip_resnet_vision import BcosCLIPResNetTower
from .modeling_bcos_image_text import BcosImageTextMixin
from .modeling_clip_resnet import CLIPResNetModel


class BcosCLIPResNetModel(BcosCLIPResNetTower, BcosImageTextMixin, CLIPResNetModel):
    """B-cos CLIPResNetModel: similarities of pictures and texts."""

    config_class = BcosCLIPResNetConfig

    @property
    def _embed_dim(self) -> int:
        return self.projection_dim
