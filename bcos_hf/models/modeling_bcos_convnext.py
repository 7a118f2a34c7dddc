"""B-cos ConvNeXt. Its last norm comes after pooling; with `head_before_pooling` it is applied at each position, as the head is."""

from torch import Tensor, nn
from transformers import ConvNextBackbone, ConvNextForImageClassification, ConvNextModel
from transformers.models.convnext.modeling_convnext import ConvNextLayerNorm

from .bcos_batch_norm import UncenteredBatchNorm2d
from .bcos_conversion import Roles
from .bcos_fits import Fit
from .bcos_norms import BcosLayerNorm
from .configuration_bcos_convnext import BcosConvNextConfig
from .modeling_bcos_vision import BcosImageClassifierMixin, BcosVisionModelMixin


class BcosConvNextLayerNorm(ConvNextLayerNorm, BcosLayerNorm):
    """ConvNextLayerNorm, which moves the channels last and calls the layer norm next in line, here `BcosLayerNorm`."""


class BcosConvNextBatchNorm(UncenteredBatchNorm2d):
    """In place of a layer norm; x [N, C, H, W], or [N, ..., C] where `channels_last`, with at most two dimensions between."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm.normalized_shape[0])
        self.channels_last = getattr(norm, "data_format", "channels_last") == "channels_last"

    def forward(self, x: Tensor) -> Tensor:
        if not self.channels_last:
            return super().forward(x)
        maps = x.movedim(-1, 1)
        return super().forward(maps[(..., *[None] * (4 - x.dim()))]).movedim(1, -1).reshape(x.shape)


class _BcosConvNext(BcosVisionModelMixin):
    config_class = BcosConvNextConfig
    roles = Roles(
        logits=("classifier",),
        stems=("embeddings.patch_embeddings", "convnext.embeddings.patch_embeddings"),
        fits=(
            Fit(r"(.*embeddings\.)patch_embeddings", then=(r"\1layernorm",)),
            Fit(r"(.*downsampling_layer\.)1", (r"\g<1>0",)),
            Fit(r".*dwconv"),
            Fit(r"(.*layers\.\d+\.)pwconv1", (r"\1layernorm",), (r"\1act",)),
            Fit(r".*pwconv2"),
            Fit("classifier", ("convnext.layernorm",)),
        ),
    )
    twins = {ConvNextLayerNorm: BcosConvNextLayerNorm}

    def post_init(self) -> None:
        """Before the weights are made."""
        if self.config.norm_layer == "batch_norm":
            for name, module in list(self.named_modules()):
                if isinstance(module, nn.LayerNorm):
                    self.set_submodule(name, BcosConvNextBatchNorm(module))
        super().post_init()


class BcosConvNextModel(_BcosConvNext, ConvNextModel):
    """B-cos ConvNextModel: the last map and its normalised mean."""


class BcosConvNextBackbone(_BcosConvNext, ConvNextBackbone):
    """B-cos ConvNextBackbone: feature maps."""


class BcosConvNextForImageClassification(_BcosConvNext, BcosImageClassifierMixin, ConvNextForImageClassification):
    """B-cos ConvNextForImageClassification."""

    def _base_output(self, pixel_values: Tensor, return_dict: bool = True, **kwargs):
        return self.convnext.encoder(self.convnext.embeddings(pixel_values), **kwargs)  # the norm sees no mean, which would enter its statistics

    def _positions(self, hidden: Tensor) -> Tensor:
        return self.convnext.layernorm(super()._positions(hidden))
