"""Normalisation layers whose deviation is a dynamic factor: y = gamma * (x - mean) / sqrt(var + eps) + beta, var held constant in explanation mode.

Centring is linear, so the mean keeps its gradient. The uncentred ones divide by the (centred, biased) deviation and subtract nothing, which keeps an
input of one sign of one sign: what B-cosification makes of BatchNorm.

Sources: Arya et al., NeurIPS 2024 (arXiv 2411.00715) section 3 and appendix; Boehle et al., TPAMI 2024 (arXiv 2306.10898) section 3.2.
"""

import torch
from torch import Tensor, nn

from .bcos_dynamic import Dynamic, carry


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _scaled(x: Tensor, dims: tuple[int, ...], eps: float, centred: bool, detach: bool) -> Tensor:
    """x (less its mean) over its deviation along `dims`, in float32 at least."""
    x = _wide(x)
    if centred:
        x = x - x.mean(dims, keepdim=True)
    deviation = (x.detach() if detach else x).var(dims, unbiased=False, keepdim=True)
    return x * (deviation + eps).rsqrt()


class _Affine(Dynamic):
    def _affine(self, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if self.weight is not None:
            x = x * self.weight.view(shape)
        if self.bias is not None:
            x = self.with_constant(x + self.bias.view(shape), self.bias.view(shape))
        return x.to(dtype)


class BcosLayerNorm(_Affine, nn.LayerNorm):
    """nn.LayerNorm over the last dimensions; x [..., *normalized_shape]."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if not self.explaining:
            return y
        dims = tuple(range(-len(self.normalized_shape), 0))
        return carry(y, self._affine(_scaled(x, dims, self.eps, True, True), self.normalized_shape, y.dtype))


class BcosGroupNorm(_Affine, nn.GroupNorm):
    """nn.GroupNorm; x [N, C, ...]. One group is the 'layer', C groups the 'instance' norm of B-cos v2."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return carry(y, self._dynamic(x, True, y.dtype)) if self.explaining else y

    def _dynamic(self, x: Tensor, centred: bool, dtype: torch.dtype) -> Tensor:
        groups = x.unflatten(1, (self.num_groups, -1))
        scaled = _scaled(groups, tuple(range(2, groups.dim())), self.eps, centred, bool(self.explaining)).flatten(1, 2)
        return self._affine(scaled, (-1, *[1] * (x.dim() - 2)), dtype)


class UncenteredGroupNorm(BcosGroupNorm):
    """Group norm that divides by the deviation and subtracts no mean; x [N, C, ...]."""

    def forward(self, x: Tensor) -> Tensor:
        return self._dynamic(x, False, x.dtype)


class PositionNorm2d(_Affine):
    """Norm over the channels at each position; x [N, C, H, W]. `centred=False` subtracts no mean."""

    def __init__(self, num_channels: int, eps: float = 1e-5, centred: bool = True, bias: bool = True) -> None:
        super().__init__()
        self.eps, self.centred = eps, centred
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return self._affine(_scaled(x, (-3,), self.eps, self.centred, bool(self.explaining)), (-1, 1, 1), x.dtype)


class BcosRMSNorm(Dynamic, nn.RMSNorm):
    """nn.RMSNorm over the last dimensions; x [..., *normalized_shape]."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if not self.explaining:
            return y
        dims, wide = tuple(range(-len(self.normalized_shape), 0)), _wide(x)
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        scaled = wide * (wide.detach().square().mean(dims, keepdim=True) + eps).rsqrt()
        return carry(y, (scaled if self.weight is None else scaled * self.weight).to(y.dtype))


class UncenteredBatchNorm2d(_Affine, nn.BatchNorm2d):
    """nn.BatchNorm2d that subtracts no mean; x [N, C, H, W].

    y = gamma * x / sqrt(var + eps) + beta with the running variance in evaluation and the biased batch variance in training, by which the running
    one is updated too (nn.BatchNorm2d takes the unbiased). `running_mean` is kept for its name in state dicts and never read.
    """

    _dims: tuple[int, ...] = (0, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.training or self.running_var is None:
            var = _wide(x).var(self._dims, unbiased=False).view(-1)
            self._track(var.detach())
        else:
            var = self.running_var
        var = var.detach() if self.explaining else var
        scaled = x * (var + self.eps).rsqrt().view(-1, 1, 1)
        return self._affine(scaled, (-1, 1, 1), x.dtype)

    @torch.no_grad()
    def _track(self, var: Tensor) -> None:
        if self.running_var is None:
            return
        self.num_batches_tracked += 1
        weight = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_var.lerp_(var.to(self.running_var.dtype), weight)


class UncenteredAllNorm2d(UncenteredBatchNorm2d):
    """Uncentred norm with one variance over batch, channels and positions ('AllNorm' of B-cos v2); x [N, C, H, W], gamma and beta scalars."""

    _dims = (0, 1, 2, 3)

    def __init__(self, eps: float = 1e-5, momentum: float | None = 0.1) -> None:
        super().__init__(1, eps, momentum)


def folded_bias(norm: nn.BatchNorm2d) -> Tensor:
    """beta' = beta - gamma * mean / sqrt(var + eps), with which the uncentred norm is the BatchNorm2d it came from; [C]."""
    return norm.bias - norm.running_mean * norm.weight * (norm.running_var + norm.eps).rsqrt()
