"""A blur before strides, so that no position is stepped over.

A 1x1 convolution with stride 2 reads one position in four. The others have no part in the prediction, and in an
explanation a lattice lies over the image. The binomial kernel [1 2 1]/4 in both directions, in front of a stride of 2,
gives every position the same weight, and leaves what is constant as it is. It is linear, so explanations stay exact.

Source: Zhang, ICML 2019 (arXiv 1904.11486).
"""

from torch import Tensor, nn
from torch.nn import functional as F

from .bcos_dynamic import Dynamic


def binomial_blur(x: Tensor, stride: int = 1) -> Tensor:
    """x [N, C, H, W] averaged by [1 2 1]/4 in both directions, its borders repeated; the same size where stride is 1."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(x, 2, 1), 2, stride)


class BlurredMaxPool2d(Dynamic, nn.MaxPool2d):
    """Maxima at every position, then the blur with the stride; x [N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        maxima = F.max_pool2d(x, self.kernel_size, 1, self.padding, self.dilation, self.ceil_mode)
        return binomial_blur(maxima, self.stride)


class BlurredAvgPool2d(Dynamic, nn.AvgPool2d):
    """The blur with the stride in the place of an average; x [N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return binomial_blur(x, self.stride)


# class of a pool -> the one with a blur, in place
BLURRED_POOLS = {nn.MaxPool2d: BlurredMaxPool2d, nn.AvgPool2d: BlurredAvgPool2d}
