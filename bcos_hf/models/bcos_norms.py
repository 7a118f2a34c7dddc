"""Normalisation layers whose deviation is a dynamic factor: y = gamma * (x - mean) / sqrt(var + eps) + beta, var held constant in explanation mode.

Centring is linear, so the mean keeps its gradient. The uncentred ones divide by the (centred, biased) deviation and subtract nothing, which keeps an
input of one sign of one sign. Norms with statistics over a batch are in `bcos_batch_norm`.

Sources: Arya et al., NeurIPS 2024 (arXiv 2411.00715) section 3 and appendix; Boehle et al., TPAMI 2024 (arXiv 2306.10898) section 3.2.
"""

import torch
from torch import Tensor, nn

from .bcos_dynamic import Dynamic, carry
from .bcos_precision import wide


def _scaled(x: Tensor, dims: tuple[int, ...], eps: float, centred: bool, detach: bool) -> Tensor:
    """x (less its mean) over its deviation along `dims`, in float32 at least."""
    x = wide(x)
    if centred:
        x = x - x.mean(dims, keepdim=True)
    deviation = (x.detach() if detach else x).var(dims, unbiased=False, keepdim=True)
    return x * (deviation + eps).rsqrt()


class Affine(Dynamic):
    """Scale and shift by `weight` and `bias`, where there are any."""

    def _affine(self, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if self.weight is not None:
            x = x * self.weight.view(shape)
        if self.bias is not None:
            x = self.with_constant(x + self.bias.view(shape), self.bias.view(shape))
        return x.to(dtype)


class BcosLayerNorm(Affine, nn.LayerNorm):
    """nn.LayerNorm over the last dimensions; x [..., *normalized_shape]."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if not self.explaining:
            return y
        dims = tuple(range(-len(self.normalized_shape), 0))
        return carry(y, self._affine(_scaled(x, dims, self.eps, True, True), self.normalized_shape, y.dtype))


class BcosGroupNorm(Affine, nn.GroupNorm):
    """nn.GroupNorm; x [N, C, ...]. One group is the 'layer', C groups the 'instance' norm of B-cos v2."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return carry(y, self._dynamic(x, True, y.dtype)) if self.explaining else y

    def _dynamic(self, x: Tensor, centred: bool, dtype: torch.dtype) -> Tensor:
        groups = x.unflatten(1, (self.num_groups, -1))
        scaled = _scaled(groups, tuple(range(2, groups.dim())), self.eps, centred, self.explaining).flatten(1, 2)
        return self._affine(scaled, (-1, *[1] * (x.dim() - 2)), dtype)


class UncenteredGroupNorm(BcosGroupNorm):
    """Group norm that divides by the deviation and subtracts no mean; x [N, C, ...]."""

    def forward(self, x: Tensor) -> Tensor:
        return self._dynamic(x, False, x.dtype)


class PositionNorm2d(Affine):
    """Norm over the channels at each position; x [N, C, H, W]. `centred=False` subtracts no mean."""

    def __init__(self, num_channels: int, eps: float = 1e-5, centred: bool = True, bias: bool = True) -> None:
        super().__init__()
        self.eps, self.centred = eps, centred
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return self._affine(_scaled(x, (-3,), self.eps, self.centred, self.explaining), (-1, 1, 1), x.dtype)


class BcosRMSNorm(Dynamic, nn.RMSNorm):
    """nn.RMSNorm over the last dimensions; x [..., *normalized_shape]."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if not self.explaining:
            return y
        dims, x32 = tuple(range(-len(self.normalized_shape), 0)), wide(x)
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        scaled = x32 * (x32.detach().square().mean(dims, keepdim=True) + eps).rsqrt()
        return carry(y, (scaled if self.weight is None else scaled * self.weight).to(y.dtype))
