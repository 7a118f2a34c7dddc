"""B-cos ResNets of small pictures: 20, 32, 44, 56, 110 layers."""

from .bcos_conversion import Roles
from .bcos_fits import Fit, convolution_fits
from .configuration_bcos_cifar_resnet import BcosCifarResNetConfig
from .modeling_bcos_vision import BcosImageClassifierMixin, BcosVisionModelMixin
from .modeling_cifar_resnet import CifarResNetForImageClassification, CifarResNetModel


class _BcosCifarResNet(BcosVisionModelMixin):
    config_class = BcosCifarResNetConfig
    roles = Roles(
        logits=("classifier.1",),
        stems=("embedder.embedder.convolution", "resnet.embedder.embedder.convolution"),
        fits=(*convolution_fits(), Fit(r"classifier\.1")),
    )


class BcosCifarResNetModel(_BcosCifarResNet, CifarResNetModel):
    """B-cos CifarResNetModel: the last map and its mean."""


class BcosCifarResNetForImageClassification(_BcosCifarResNet, BcosImageClassifierMixin, CifarResNetForImageClassification):
    """B-cos CifarResNetForImageClassification."""
