"""B-cos DenseNet."""

from torch import Tensor

from .bcos_conversion import Roles
from .bcos_fits import Fit
from .configuration_bcos_densenet import BcosDenseNetConfig
from .modeling_bcos_vision import BcosImageClassifierMixin, BcosVisionModelMixin
from .modeling_densenet import DenseNetForImageClassification, DenseNetModel


class _BcosDenseNet(BcosVisionModelMixin):
    config_class = BcosDenseNetConfig
    roles = Roles(
        logits=("classifier",),
        stems=("features.conv0",),
        layer=r"(?:denseblock|transition)(\d+)",
        first_layer=1,
        fits=(
            Fit(r"features\.conv0", then=("features.norm0", "features.relu0")),
            Fit(r"(.*\.)conv1", (r"\1norm1", r"\1relu1"), (r"\1norm2", r"\1relu2")),
            Fit(r".*\.conv2"),
            Fit(r"(features\.transition\d+\.)conv", (r"\1norm", r"\1relu")),
            Fit("classifier", ("features.norm5", "relu5")),
        ),
    )


class BcosDenseNetModel(_BcosDenseNet, DenseNetModel):
    """B-cos DenseNetModel: the last map and its mean."""


class BcosDenseNetForImageClassification(_BcosDenseNet, BcosImageClassifierMixin, DenseNetForImageClassification):
    """B-cos DenseNetForImageClassification."""

    def _base_output(self, pixel_values: Tensor, **kwargs):
        return DenseNetModel.forward(self, pixel_values, **kwargs)
