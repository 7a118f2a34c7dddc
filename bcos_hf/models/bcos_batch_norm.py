"""Batch norms whose deviation is a dynamic factor. B-cosification's subtracts no mean: y = gamma x / sqrt(var + eps) + beta.

In evaluation the deviation is the running one and does not depend on the input. In training it is the biased batch deviation, held constant in
explanation mode. Sources: Arya et al., NeurIPS 2024 (arXiv 2411.00715) section 3 and appendix; Boehle et al., TPAMI 2024 (arXiv 2306.10898) section 3.2.
"""

import torch
from torch import Tensor, nn

from .bcos_norms import Affine, PositionNorm2d, wide


class UncenteredBatchNorm2d(Affine, nn.BatchNorm2d):
    """nn.BatchNorm2d that subtracts no mean; x [N, C, H, W].

    The running variance is updated by the biased batch variance (nn.BatchNorm2d takes the unbiased). `running_mean` is kept for its name in state
    dicts and never read.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and self.running_var is not None:
            return self._shifted(x * self._scale(self.running_var).to(x.dtype))
        if self.explaining:
            var = wide(x.detach()).var((0, 2, 3), unbiased=False)
            y = (x * self._scale(var)).to(x.dtype)
        else:
            y, _, var = _BatchScaling.apply(x, self.weight, self.eps)
        self._track(var.detach())
        return self._shifted(y)

    def _scale(self, var: Tensor) -> Tensor:
        """gamma / sqrt(var + eps), [C, 1, 1]."""
        scale = (var + self.eps).rsqrt()
        return (scale if self.weight is None else scale * self.weight).view(-1, 1, 1)

    def _shifted(self, x: Tensor) -> Tensor:
        return x if self.bias is None else self.with_constant(x + self.bias.view(-1, 1, 1), self.bias.view(-1, 1, 1))

    @torch.no_grad()
    def _track(self, var: Tensor) -> None:
        if self.running_var is None or not self.training:
            return
        self.num_batches_tracked += 1
        weight = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_var.lerp_(var.to(self.running_var.dtype), weight)


class _BatchScaling(torch.autograd.Function):
    """gamma x / sqrt(var + eps), mean [C] and biased var [C] of x [N, C, H, W]; keeps x only, as nn.BatchNorm2d does.

    With s = gamma / sqrt(var + eps) and M numbers a channel:  dL/dx = s g - s (x - mean) sum(g x) / (M (var + eps)).
    Sums go over positions first: over all three dimensions at once they cost ten times as much on a CPU.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        mean = wide(x).mean((0, 2, 3))
        var = (wide(x) - mean.view(-1, 1, 1)).square_().flatten(2).sum(2).mean(0) / x[0, 0].numel()
        scale = (var + eps).rsqrt() if weight is None else (var + eps).rsqrt() * weight
        return (x * scale.view(-1, 1, 1)).to(x.dtype), mean, var

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, weight, ctx.eps = inputs
        ctx.save_for_backward(x, weight, *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx, grad: Tensor, *_):
        x, weight, mean, var = ctx.saved_tensors
        inverse = (var + ctx.eps).rsqrt()
        scale = inverse if weight is None else inverse * weight
        products = wide(grad * x).flatten(2).sum(2).sum(0)
        pull = -scale * inverse.square() * products * (len(var) / x.numel())
        grad_x = (grad * scale.view(-1, 1, 1)).addcmul_(x, pull.view(-1, 1, 1)).sub_((pull * mean).view(-1, 1, 1)).to(x.dtype)
        return grad_x, None if weight is None else products * inverse, None


class UncenteredAllNorm2d(UncenteredBatchNorm2d):
    """Uncentred norm with one variance over batch, channels and positions ('AllNorm' of B-cos v2); x [N, C, H, W], gamma and beta scalars."""

    def __init__(self, eps: float = 1e-5, momentum: float | None = 0.1) -> None:
        super().__init__(1, eps, momentum)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(len(x), 1, -1, x.shape[-1])).view_as(x)


class BcosBatchNorm2d(Affine, nn.BatchNorm2d):
    """nn.BatchNorm2d as it is; x [N, C, H, W]. In evaluation gamma mean / deviation is a constant, counted as one."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and self.running_var is not None:
            return self.with_constant(super().forward(x), self._shift())
        if not self.explaining:
            return super().forward(x)
        centred = wide(x) - wide(x).mean((0, 2, 3), keepdim=True)
        scaled = centred * (wide(x.detach()).var((0, 2, 3), unbiased=False, keepdim=True) + self.eps).rsqrt()
        return self._affine(scaled, (-1, 1, 1), x.dtype)

    def _shift(self) -> Tensor:
        shift = -self.running_mean * (self.running_var + self.eps).rsqrt()
        shift = shift if self.weight is None else shift * self.weight
        return (shift if self.bias is None else shift + self.bias).view(-1, 1, 1)


def folded_bias(bias: Tensor, weight: Tensor, running_mean: Tensor, running_var: Tensor, eps: float) -> Tensor:
    """beta' = beta - gamma mean / sqrt(var + eps), with which the uncentred norm is the BatchNorm2d it came from; all [C]."""
    return bias - weight * running_mean * (running_var + eps).rsqrt()


def _uncentered(norm: nn.BatchNorm2d, note: str) -> str:
    norm.__class__ = UncenteredBatchNorm2d
    return f"divides by the deviation, subtracts no mean; {note}"


def _centered(norm: nn.BatchNorm2d) -> str:
    norm.__class__ = BcosBatchNorm2d
    return "deviation is a dynamic factor"


def _position(norm: nn.BatchNorm2d) -> str:
    norm.__class__, norm.centred = PositionNorm2d, True
    norm.running_mean = norm.running_var = norm.num_batches_tracked = None
    return "norm over the channels at each position"


# `batch_norm` of a configuration -> what becomes of an nn.BatchNorm2d, in place
BATCH_NORMS = {
    "uncentered": lambda norm: _uncentered(norm, "the running mean is folded into a bias that is kept"),
    "uncentered_unfolded": lambda norm: _uncentered(norm, "a bias that is kept stays as it is"),
    "centered": _centered,
    "position": _position,
}
