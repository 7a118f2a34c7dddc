"""ResNeXt (Xie et al., CVPR 2017, arXiv 1611.05431), which transformers lacks: its ResNet, whose 3x3 convolutions have groups, with wider bottlenecks.

resnext50_32x4d is the default: 32 groups of 4 channels in the first stage, of twice as many in each stage after it. One group of 128 is Wide ResNet-50-2
(Zagoruyko and Komodakis, BMVC 2016, arXiv 1605.07146).
"""

from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, ResNetModel
from transformers.models.resnet.modeling_resnet import ResNetBottleNeckLayer, ResNetConvLayer


@strict
class ResNeXtConfig(ResNetConfig):
    """ResNetConfig with `groups`, and `width_per_group` channels in each group of a stage whose plain bottleneck has 64."""

    model_type = "resnext"

    groups: int = 32
    width_per_group: int = 4

    def __post_init__(self, **kwargs) -> None:
        super().__post_init__(**kwargs)
        widths = [self.width_of(size) for size in self.hidden_sizes]
        if self.layer_type != "bottleneck" or min(widths) < 1:
            raise ValueError(
                f"ResNeXt: expected layer_type 'bottleneck' and a channel or more in each group; got {self.layer_type!r} and {widths} channels in "
                f"groups={self.groups}. ResNetConfig has the networks without groups."
            )

    def width_of(self, out_channels: int) -> int:
        """Channels of the 3x3 convolution in a layer of so many output channels."""
        return out_channels // 4 * self.width_per_group // 64 * self.groups


class ResNeXtBottleNeckLayer(ResNetBottleNeckLayer):
    """ResNetBottleNeckLayer with groups and its own width; made of one by `_group_`."""


def _group_(layer: ResNetBottleNeckLayer, config: ResNeXtConfig) -> None:
    layer.__class__ = ResNeXtBottleNeckLayer
    first, middle, last = (part.convolution for part in layer.layer)
    width = config.width_of(last.out_channels)
    layer.layer = nn.Sequential(
        ResNetConvLayer(first.in_channels, width, kernel_size=1, stride=first.stride[0]),
        ResNetConvLayer(width, width, stride=middle.stride[0], groups=config.groups),
        ResNetConvLayer(width, last.out_channels, kernel_size=1, activation=None),
    )


class _ResNeXt:
    config_class = ResNeXtConfig

    def post_init(self) -> None:
        """Before the weights are made."""
        for module in self.modules():
            if type(module) is ResNetBottleNeckLayer:
                _group_(module, self.config)
        super().post_init()


class ResNeXtModel(_ResNeXt, ResNetModel):
    """ResNetModel with groups."""


class ResNeXtForImageClassification(_ResNeXt, ResNetForImageClassification):
    """ResNetForImageClassification with groups."""
