"""B-cos ConvNeXt. Its last norm comes after pooling; with `head_before_pooling` it is applied at each position, as the head is."""

from torch import Tensor
from transformers import ConvNextBackbone, ConvNextForImageClassification, ConvNextModel
from transformers.models.convnext.modeling_convnext import ConvNextLayerNorm

from .bcos_conversion import Roles
from .bcos_norms import BcosLayerNorm
from .configuration_bcos_convnext import BcosConvNextConfig
from .modeling_bcos_vision import BcosImageClassifierMixin, BcosVisionModelMixin


class BcosConvNextLayerNorm(ConvNextLayerNorm, BcosLayerNorm):
    """ConvNextLayerNorm, which moves the channels last and calls the layer norm next in line, here `BcosLayerNorm`."""


class _BcosConvNext(BcosVisionModelMixin):
    config_class = BcosConvNextConfig
    roles = Roles(logits=("classifier",), stems=("embeddings.patch_embeddings", "convnext.embeddings.patch_embeddings"))
    twins = {ConvNextLayerNorm: BcosConvNextLayerNorm}


class BcosConvNextModel(_BcosConvNext, ConvNextModel):
    """B-cos ConvNextModel: the last map and its normalised mean."""


class BcosConvNextBackbone(_BcosConvNext, ConvNextBackbone):
    """B-cos ConvNextBackbone: feature maps."""


class BcosConvNextForImageClassification(_BcosConvNext, BcosImageClassifierMixin, ConvNextForImageClassification):
    """B-cos ConvNextForImageClassification."""

    def _positions(self, hidden: Tensor) -> Tensor:
        return self.convnext.layernorm(super()._positions(hidden))
