"""ResNets of small pictures (He et al., CVPR 2016, arXiv 1512.03385, section 4.2), which transformers lacks: its ResNet of basic layers with another stem.

ResNet-20 is the default; depths of [n, n, n] are 6 n + 2 layers. The stem is one 3x3 convolution, which keeps the size of the pictures. A shortcut to more
channels is the paper's option A: every second position, and channels of zeros around.
"""

from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, ResNetModel
from transformers.models.resnet.modeling_resnet import ResNetBasicLayer, ResNetConvLayer, ResNetEmbeddings, ResNetShortCut


@strict
class CifarResNetConfig(ResNetConfig):
    """ResNetConfig with the sizes of ResNet-20."""

    model_type = "cifar_resnet"

    embedding_size: int = 16
    hidden_sizes: list[int] | tuple[int, ...] | None = (16, 32, 64)
    depths: list[int] | tuple[int, ...] | None = (3, 3, 3)
    layer_type: str = "basic"

    def __post_init__(self, **kwargs) -> None:
        super().__post_init__(**kwargs)
        widths = [self.embedding_size, *self.hidden_sizes]
        if self.layer_type != "basic" or sorted(widths) != widths:
            raise ValueError(f"CifarResNet: expected layer_type 'basic' and widths that do not fall; got {self.layer_type!r} and {widths}.")


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    before = (out_channels - in_channels) // 2
    return nn.Sequential(nn.AvgPool2d(1, stride), nn.ZeroPad3d((0, 0, 0, 0, before, out_channels - in_channels - before)))


class _CifarResNet:
    config_class = CifarResNetConfig

    def post_init(self) -> None:
        """Before the weights are made; a second time, when a model was B-cosified, it changes nothing."""
        for module in self.modules():
            if type(module) is ResNetEmbeddings and not isinstance(module.pooler, nn.Identity):
                module.embedder = ResNetConvLayer(self.config.num_channels, self.config.embedding_size, activation=self.config.hidden_act)
                module.pooler = nn.Identity()
            elif type(module) is ResNetBasicLayer and isinstance(module.shortcut, ResNetShortCut):
                first, last = (part.convolution for part in module.layer)
                module.shortcut = _shortcut(first.in_channels, last.out_channels, first.stride[0])
        super().post_init()


class CifarResNetModel(_CifarResNet, ResNetModel):
    """ResNetModel for small pictures."""


class CifarResNetForImageClassification(_CifarResNet, ResNetForImageClassification):
    """ResNetForImageClassification for small pictures."""
