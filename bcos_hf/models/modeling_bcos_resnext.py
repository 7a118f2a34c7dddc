"""B-cos ResNeXt."""

from .bcos_conversion import Roles
from .bcos_fits import Fit, convolution_fits
from .configuration_bcos_resnext import BcosResNeXtConfig
from .modeling_bcos_vision import BcosImageClassifierMixin, BcosVisionModelMixin
from .modeling_resnext import ResNeXtForImageClassification, ResNeXtModel


class _BcosResNeXt(BcosVisionModelMixin):
    config_class = BcosResNeXtConfig
    roles = Roles(
        logits=("classifier.1",),
        stems=("embedder.embedder.convolution", "resnet.embedder.embedder.convolution"),
        fits=(*convolution_fits(), Fit(r"classifier\.1")),
    )


class BcosResNeXtModel(_BcosResNeXt, ResNeXtModel):
    """B-cos ResNeXtModel: the last map and its mean."""


class BcosResNeXtForImageClassification(_BcosResNeXt, BcosImageClassifierMixin, ResNeXtForImageClassification):
    """B-cos ResNeXtForImageClassification."""
