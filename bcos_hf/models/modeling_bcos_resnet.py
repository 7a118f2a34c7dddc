"""B-cos ResNet, all variants of transformers' ResNet: 18, 34, 50, 101, 152."""

from transformers import ResNetBackbone, ResNetForImageClassification, ResNetModel

from .bcos_conversion import Roles
from .bcos_fits import Fit, convolution_fits
from .configuration_bcos_resnet import BcosResNetConfig
from .modeling_bcos_vision import BcosImageClassifierMixin, BcosVisionModelMixin


class _BcosResNet(BcosVisionModelMixin):
    config_class = BcosResNetConfig
    roles = Roles(
        logits=("classifier.1",),
        stems=("embedder.embedder.convolution", "resnet.embedder.embedder.convolution"),
        fits=(*convolution_fits(), Fit(r"classifier\.1")),
    )


class BcosResNetModel(_BcosResNet, ResNetModel):
    """B-cos ResNetModel: the last map and its mean."""


class BcosResNetBackbone(_BcosResNet, ResNetBackbone):
    """B-cos ResNetBackbone: feature maps."""


class BcosResNetForImageClassification(_BcosResNet, BcosImageClassifierMixin, ResNetForImageClassification):
    """B-cos ResNetForImageClassification."""
