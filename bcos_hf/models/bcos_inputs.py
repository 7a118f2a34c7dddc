"""How a picture enters a B-cos network: with its inverse beside it, so that dark pixels can speak too.

    "normalized"   [z, -z]      z as an image processor gives it; the pretrained first layer W becomes [W/2, -W/2], the same function
    "add_inverse"  [x, 1 - x]   x in [0, 1], for networks trained from scratch
    "none"         x

The first layer encodes its own input, so that pixel_values keep their 3 channels and processors and pipelines stay stock.

Sources: Boehle et al., CVPR 2022 (arXiv 2205.10268) section 3.3; Arya et al., NeurIPS 2024 (arXiv 2411.00715) section 3.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.utils import logging

from .bcos_dynamic import carry
from .bcos_layers import BcosConv2d, BcosLinear


logger = logging.get_logger(__name__)

# name -> (what stands beside x, lowest and highest value that an image processor set up for it can give)
ENCODINGS = {
    "none": (None, (-torch.inf, torch.inf)),
    "normalized": (torch.neg, (-torch.inf, torch.inf)),
    "add_inverse": (lambda x: 1 - x, (0.0, 1.0)),
}


class InputEncoding(nn.Module):
    """x [N, C, H, W] -> [N, 2C, H, W] ([N, C, H, W] for "none"). Warns once where the first pictures cannot be what `kind` says."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.checked = kind, kind == "none"

    def forward(self, x: Tensor) -> Tensor:
        self.check_once(x)
        inverse, _ = ENCODINGS[self.kind]
        return x if inverse is None else torch.cat([x, inverse(x)], dim=1)

    def check_once(self, x: Tensor) -> None:
        """`check`, for the first pictures only: it reads numbers, for which an accelerator has to wait."""
        if not (self.checked or torch.compiler.is_compiling()):
            self.checked = True
            self.check(x)

    def check(self, x: Tensor) -> None:
        """Warn if the values of x cannot be those of a processor set up for this encoding."""
        low, high = (value.item() for value in x.detach().aminmax()) if x.numel() and x.device.type != "meta" else (-1.0, 0.0)
        smallest, largest = ENCODINGS[self.kind][1]
        if not smallest <= low <= high <= largest:
            logger.warning(
                f"pixel_values: input_encoding={self.kind!r} expects values from {smallest:g} to {largest:g}, got {low:.3g} to {high:.3g}. "
                "Set do_normalize=False (and do_rescale=True) in the image processor."
            )
        elif self.kind == "normalized" and low >= 0 and 0 < high <= 1:
            logger.warning(
                f"pixel_values: input_encoding='normalized' expects values around 0, got {low:.3g} to {high:.3g}, which look like pictures in [0, 1]. "
                "Use the image processor that the model was made with."
            )

    def extra_repr(self) -> str:
        return self.kind


class BcosStem(BcosConv2d):
    """The first convolution: BcosConv2d on the encoded picture; x [N, C, H, W]. Made by `as_stem_`.

    The filter [W1, W2] on [z, -z] is W1 - W2 on z, and |[z, -z]|^2 = 2 |z|^2: half the work. Explanations take their gradient from the whole.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":  # every layer after it keeps this order, in which a CPU's convolutions and norms over channels cost less
            x = x.contiguous(memory_format=torch.channels_last)
        if self._halves and not self.explaining:
            self.encoding.check_once(x)
            return super().forward(x)
        return super().forward(self.encoding(x))

    @property
    def _halves(self) -> bool:
        return self.encoding.kind == "normalized"

    def _linear(self, x: Tensor) -> Tensor:
        if not self._halves:
            return super()._linear(x)
        first, second = self.weight.chunk(2, dim=1)
        lin = self._conv_forward(x[:, : first.shape[1]], first - second, self.bias)
        return carry(lin, self._whole(x)) if self.explaining else lin

    def _whole(self, x: Tensor) -> Tensor:
        """The layer on the encoded picture; of patches that do not overlap by a matrix product, whose gradient costs a third of the convolution's."""
        (height, width), size = self.kernel_size, x.shape[-2:]
        if self.stride != self.kernel_size or self.padding != (0, 0) or self.dilation != (1, 1) or size[0] % height or size[1] % width:
            return super()._linear(x)
        patches = x.unflatten(-1, (-1, width)).unflatten(-3, (-1, height)).permute(0, 2, 4, 1, 3, 5).flatten(3)
        return F.linear(patches, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)

    def _squares(self, x: Tensor) -> Tensor:
        return 2 * super()._squares(x[:, : self.in_channels // 2]) if self._halves else super()._squares(x)


class BcosPatchStem(BcosLinear):
    """The first layer of a network that encodes the picture and cuts it to patches before it; x [..., 2C * patch area], channels innermost."""


def as_stem_(layer: BcosConv2d | BcosLinear, kind: str) -> None:
    """Turn the first layer into one that reads encoded pictures: room for twice the channels. Numbers are `split_weight`'s."""
    convolution = isinstance(layer, BcosConv2d)
    layer.__class__ = BcosStem if convolution else BcosPatchStem
    if convolution:
        layer.encoding = InputEncoding(kind)
    if kind == "none":
        return
    if convolution and layer.groups != 1:
        raise ValueError(f"input_encoding={kind!r}: expected a first convolution without groups, got groups={layer.groups}. Use input_encoding='none'.")
    name = "in_channels" if convolution else "in_features"
    setattr(layer, name, 2 * getattr(layer, name))
    shape = list(layer.weight.shape)
    shape[1] *= 2
    layer.weight = nn.Parameter(layer.weight.new_empty(shape), requires_grad=layer.weight.requires_grad)
    layer.reset_parameters()
    layer._is_hf_initialized = False


def split_weight(weight: Tensor, channels: int) -> Tensor:
    """[W/2, -W/2] along the channels of W [out, C, h, w], or of W [out, area * C] with channels innermost: the same function of [z, -z]."""
    if weight.dim() == 4:
        return torch.cat([weight, -weight], dim=1) / 2
    patches = weight.unflatten(1, (-1, channels))
    return (torch.cat([patches, -patches], dim=2) / 2).flatten(1)


def add_inverse_weights(weight: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The standard layer of z = (x - mean) / std as one of [x, 1 - x], exactly, padding included: W z = W (1 - mean) / std . x - W mean / std . (1 - x).

    Args:
        weight: W [O, C, h, w], or [O, area * C] with channels innermost. mean, std: [C].
    """
    channels = len(mean)
    by_channel = weight if weight.dim() == 4 else weight.unflatten(1, (-1, channels)).transpose(1, 2)  # [O, C, ...]
    mean, std = (value.to(weight).view(1, -1, *[1] * (by_channel.dim() - 2)) for value in (mean, std))
    both = torch.cat([by_channel * (1 - mean) / std, -by_channel * mean / std], dim=1)
    return both if weight.dim() == 4 else both.transpose(1, 2).flatten(1)
