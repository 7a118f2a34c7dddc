"""The image tower of B-cos CLIP with a residual network, alone. As published, its attention pool has no positions and its projection stays linear."""

from torch import Tensor

from .bcos_conversion import Roles
from .bcos_dynamic import Dynamic
from .bcos_fits import KEYS, Fit, clip_fits
from .configuration_bcos_clip_resnet import BcosCLIPResNetVisionConfig
from .modeling_bcos_image_text import BcosImageEmbeddingMixin, unit
from .modeling_clip_resnet_vision import AttentionPool2d, CLIPResNetVisionModel


class BcosAttentionPool2d(Dynamic, AttentionPool2d):
    """Attention pooling, linear in its values. `unpooled` is the published reading of single positions, where the projection is a B-cos layer."""

    def _with_positions(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        if self.positional_embedding is None:
            return tokens
        positions = self.positions(size)
        return self.with_constant(tokens + positions, positions)

    def _projected(self, pooled: Tensor) -> Tensor:
        return self.c_proj(pooled, scaled=False)

    def unpooled(self, x: Tensor) -> Tensor:
        """Embeddings of length 1 of each position, [N, H W, projection_dim], of a map [N, C, H, W]."""
        return unit(self.c_proj(self.v_proj(x.flatten(2).transpose(1, 2))), constant=self.explaining).to(x.dtype)


class BcosCLIPResNetTower:
    """Mixed in before a CLIP ResNet, of the image tower or of both."""

    roles = Roles(
        stems=("conv1", "vision_model.conv1"),
        layer=r"layer(\d+)\.",
        first_layer=1,
        fits=(
            Fit(r"(.*)conv([12])", then=(r"\1bn\2", r"\1relu\2")),
            Fit(r"(.*)conv3", then=(r"\1bn3", r"\1relu3")),
            Fit(r"(.*downsample\.)0", then=(r"\g<1>1",)),
            Fit(r".*attnpool\.[qv]_proj"),
            Fit(r".*attnpool\.k_proj", left=KEYS),
            Fit(r".*attnpool\.c_proj"),
            *clip_fits(),  # of the text tower
            Fit("text_projection", ("text_model.final_layer_norm",)),
        ),
    )
    twins = {AttentionPool2d: BcosAttentionPool2d}

    def __init__(self, config, *args, **kwargs) -> None:
        super().__init__(config, *args, **kwargs)
        if not config.keep_positions:
            self._vision.attnpool.positional_embedding = None

    @property
    def _vision(self) -> CLIPResNetVisionModel:
        return getattr(self, "vision_model", self)

    def position_embeds(self, pixel_values: Tensor, **inputs) -> Tensor:
        """Embeddings [N, positions, D] of each position before pooling."""
        return self._vision.attnpool.unpooled(self._vision.feature_map(pixel_values))


class BcosCLIPResNetVisionModel(BcosCLIPResNetTower, BcosImageEmbeddingMixin, CLIPResNetVisionModel):
    """B-cos CLIPResNetVisionModel: the last map and the image embedding."""

    config_class = BcosCLIPResNetVisionConfig

    def image_embeds(self, pixel_values: Tensor, **inputs) -> Tensor:
        """Embeddings [N, D] of pictures [N, C, H, W], not normalised."""
        return self(pixel_values=pixel_values, **inputs).pooler_output
