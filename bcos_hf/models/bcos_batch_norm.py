"""Batch norms whose deviation is a dynamic factor. B-cosification's subtracts no mean: y = gamma x / sqrt(var + eps) + beta.

In evaluation the deviation is the running one and does not depend on the input. In training it is the biased batch deviation, held constant in
explanation mode. Sources: Arya et al., NeurIPS 2024 (arXiv 2411.00715) section 3 and appendix; Boehle et al., TPAMI 2024 (arXiv 2306.10898) section 3.2.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .bcos_norms import Affine, PositionNorm2d
from .bcos_precision import wide, wide_dtype
from .bcos_synchronised_norm import processes, synchronised_scaling


class UncenteredBatchNorm2d(Affine, nn.BatchNorm2d):
    """nn.BatchNorm2d that subtracts no mean; x [N, C, H, W].

    The running variance is updated by the biased batch variance (nn.BatchNorm2d takes the unbiased). `running_mean` is kept for its name in state
    dicts and never read.

    Attributes:
        synchronised: in training under several processes, the variance is that of all their pictures, as one process with the whole batch has it.
    """

    synchronised = False

    def forward(self, x: Tensor) -> Tensor:
        x = _dense(x)
        of_batch = self.training or self.running_var is None
        if of_batch and not self.explaining and self.synchronised and processes() > 1:
            y, var = synchronised_scaling(x, self.weight, self.bias, self.eps)
        elif of_batch and not self.explaining:
            y, _, var = _BatchScaling.apply(x, self.weight, self.bias, self.eps)
            y = _dense_gradient(y)
        else:
            var = _statistics(x.detach())[1] if of_batch else self.running_var
            y = _scaled(self, x, torch.zeros_like(var), var)
        self._track(var)
        return y if self.bias is None else self.with_constant(y, self.bias.view(-1, 1, 1))

    @torch.no_grad()
    def _track(self, var: Tensor) -> None:
        if self.running_var is None or not self.training:
            return
        self.num_batches_tracked += 1
        weight = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_var.lerp_(var.to(self.running_var.dtype), weight)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of x [N, C, H, W], two [C] in float32 at least, by torch's own kernel, in one call."""
    unused = x.new_zeros(x.shape[1], dtype=wide_dtype(x))  # "running" statistics, of the dtype to compute in
    return torch.batch_norm_update_stats(x, unused, unused.clone(), 0.0)


def _divided(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """gamma (x - mean) / sqrt(var + eps) + beta, by torch's own kernel, in one pass."""
    mean, var, weight, bias = (t if t is None else wide(t) for t in (mean, var, weight, bias))
    return F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)


def _dense(x: Tensor) -> Tensor:
    """x, for a batch norm of torch, whose CPU kernel (2.13) misreads one picture, too, that is channels last but for the first stride."""
    return x.clone(memory_format=torch.contiguous_format) if len(x) == 1 and x.requires_grad and x.stride(0) != x.numel() else x


def _scaled(norm: nn.BatchNorm2d, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """The norm of x by statistics that are constants. In explanations of a frozen model everything but x is one."""
    constants = (mean, var, norm.weight, norm.bias, norm.eps)
    if norm.explaining and not any(p is not None and p.requires_grad for p in (norm.weight, norm.bias)):
        return _ConstantScaling.apply(x, *constants)
    return _dense_gradient(_divided(x, *constants))


class _ConstantScaling(torch.autograd.Function):
    """`_divided` with a gradient for x alone, one product; that of torch's kernel takes twice as long, sums that nobody asked for included."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        return _divided(x, mean, var, weight, bias, eps)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, _, var, weight, _, eps = inputs
        scale = (wide(var) + eps).rsqrt()
        ctx.save_for_backward((scale if weight is None else scale * weight).to(output.dtype).view(-1, 1, 1))

    @staticmethod
    def backward(ctx, grad: Tensor):
        (scale,) = ctx.saved_tensors
        return grad * scale, None, None, None, None, None


class _DenseGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor) -> Tensor:
        return y.clone()  # a view could not be added to in place

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad.contiguous()


def _dense_gradient(y: Tensor) -> Tensor:
    """y, what a batch norm of torch gave. For one picture its CPU kernel (2.13) misreads a gradient that is channels last but for the first stride."""
    return _DenseGradient.apply(y) if len(y) == 1 and y.requires_grad else y


class _BatchScaling(torch.autograd.Function):
    """gamma x / sqrt(var + eps) + beta, mean [C] and biased var [C] of x [N, C, H, W]; keeps x only, as nn.BatchNorm2d does.

    It is torch's centred norm plus s mean, s = gamma / sqrt(var + eps). So the gradient is that of torch's own backward pass plus that of s mean, which is
    affine in x in each channel; with G the mean of g over the M numbers of a channel:  s G - s (x - mean) mean G / (var + eps).
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        mean, var = _statistics(x)
        return _divided(x, torch.zeros_like(mean), var, weight, bias, eps), mean, var

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, weight, bias, ctx.eps = inputs
        ctx.has_bias = bias is not None
        ctx.save_for_backward(x, weight, *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx, grad: Tensor, *_):
        x, weight, mean, var = ctx.saved_tensors
        inverse = (var + ctx.eps).rsqrt()
        saved = (x, weight if weight is None else wide(weight), None, None, mean, inverse, True, ctx.eps, [True, True, True])
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(grad, *saved)
        shift = grad_bias * inverse * (1 if weight is None else weight) * (len(var) / x.numel())
        slope = -shift * mean * inverse.square()
        grad_x.addcmul_(x, slope.view(-1, 1, 1)).add_((shift - slope * mean).view(-1, 1, 1))
        return grad_x, None if weight is None else grad_weight + mean * inverse * grad_bias, grad_bias if ctx.has_bias else None, None


class UncenteredAllNorm2d(UncenteredBatchNorm2d):
    """Uncentred norm with one variance over batch, channels and positions ('AllNorm' of B-cos v2); x [N, C, H, W], gamma and beta scalars."""

    def __init__(self, eps: float = 1e-5, momentum: float | None = 0.1) -> None:
        super().__init__(1, eps, momentum)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(len(x), 1, -1, x.shape[-1])).view_as(x)


class BcosBatchNorm2d(Affine, nn.BatchNorm2d):
    """nn.BatchNorm2d as it is; x [N, C, H, W]. In evaluation gamma mean / deviation is a constant, counted as one."""

    def forward(self, x: Tensor) -> Tensor:
        x = _dense(x)
        if not self.training and self.running_var is not None:
            return self.with_constant(_scaled(self, x, self.running_mean, self.running_var), self._shift())
        if not self.explaining:
            return _dense_gradient(super().forward(x))
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
