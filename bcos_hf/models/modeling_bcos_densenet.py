"""B-cos DenseNet."""

from torch import Tensor

from .bcos_conversion import Roles
from .configuration_bcos_densenet import BcosDenseNetConfig
from .modeling_bcos_vision import BcosImageClassifierMixin, BcosVisionModelMixin
from .modeling_densenet import DenseNetForImageClassification, DenseNetModel


class _BcosDenseNet(BcosVisionModelMixin):
    config_class = BcosDenseNetConfig
    roles = Roles(logits=("classifier",), stems=("features.conv0",), layer=r"(?:denseblock|transition)(\d+)", first_layer=1)


class BcosDenseNetModel(_BcosDenseNet, DenseNetModel):
    """B-cos DenseNetModel: the last map and its mean."""


class BcosDenseNetForImageClassification(_BcosDenseNet, BcosImageClassifierMixin, DenseNetForImageClassification):
    """B-cos DenseNetForImageClassification."""

    def _base_output(self, pixel_values: Tensor, **kwargs):
        return DenseNetModel.forward(self, pixel_values, **kwargs)
