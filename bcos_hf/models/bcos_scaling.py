"""The B-cos scaling, y = lin * (|lin| / n)^(B-1), with a backward pass that needs its output and the norms only.

Autograd would keep lin, |lin|, the quotient and the power, five tensors of the output's size. But the scaling can be inverted: with
t = |lin| / n the output is |y| / n = t (t + eps)^(B-1), from which t, and with it every derivative, comes back. y is kept by the next layer anyway
(an activation or a linear layer saves its input), so that training a B-cos layer keeps almost nothing that plain training does not.

Derivatives, with s = t + eps, c = t / s and unit rows lin = raw / |w|:
    dy/draw = s^(B-1) (1 + (B-1) c) / |w|        n dy/dn = -(B-1) c y        |w| dy/d|w| = -(1 + (B-1) c) y        dy/dB = y log s
"""

import torch
from torch import Tensor

from .bcos_precision import wide


COSINE_EPS = 1e-6  # the published (|cos| + 1e-6)^(B-1); B = 2 has none


def _eps(b: float | Tensor) -> float:
    return 0.0 if isinstance(b, float) and b == 2 else COSINE_EPS


def _exponent(b: float | Tensor) -> float | Tensor:
    """B - 1; a learned B below 1 acts as 1."""
    return b.clamp_min(1) - 1 if isinstance(b, Tensor) else b - 1


def _power_(s: Tensor, exponent: float | Tensor) -> Tensor:
    """s^exponent in place, by the square root where that is the power: torch's pow costs several times as much."""
    if isinstance(exponent, float) and exponent in (0.5, 1.0):
        return s.sqrt_() if exponent == 0.5 else s
    return s.pow_(exponent)


def cosine_factor(lin: Tensor, norm: Tensor, row_norm: Tensor | None, b: float | Tensor) -> Tensor:
    """(|lin| / (row_norm norm) + eps)^(B-1) / row_norm, what a B-cos layer multiplies lin with, in the dtype of `norm`. One buffer, no gradient."""
    cosine = lin.abs().to(norm.dtype).mul_(norm.reciprocal())
    if row_norm is not None:
        cosine.mul_(row_norm.reciprocal())
    eps = _eps(b)
    factor = _power_(cosine.add_(eps) if eps else cosine, _exponent(b))
    return factor if row_norm is None else factor.mul_(row_norm.reciprocal())


def bcos_scaling(lin: Tensor, norm: Tensor, row_norm: Tensor | None = None, b: float | Tensor = 2.0) -> Tensor:
    """lin / row_norm times its cosine factor.

    Args:
        lin: w . x, any shape.
        norm: norm of the input that each output sees, broadcastable to lin.
        row_norm: |w|, broadcastable to lin; None where weights are not normalised.
        b: B, a float or a scalar tensor.
    """
    return _run(_Scaling, lin, norm, row_norm, b)


def _run(function: type[torch.autograd.Function], *inputs) -> Tensor:
    """The function, without autograd's bookkeeping where there are no gradients."""
    return (function.apply if torch.is_grad_enabled() else function.forward)(*inputs)


class _Scaling(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(lin: Tensor, norm: Tensor, row_norm: Tensor | None, b: float | Tensor) -> Tensor:
        return cosine_factor(lin, norm, row_norm, b).mul_(lin).to(lin.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, norm, row_norm, b = inputs
        learned = isinstance(b, Tensor)
        ctx.b = None if learned else b
        ctx.save_for_backward(output, norm, row_norm, b if learned else None)

    @staticmethod
    def backward(ctx, grad: Tensor):
        y, norm, row_norm, b = ctx.saved_tensors
        b = ctx.b if b is None else b
        eps, exponent = _eps(b), _exponent(b)
        gy = grad * y
        grad_b = grad_row = None
        if ctx.needs_input_grad[3]:
            grad_b = torch.where(b >= 1, (gy * _shifted_cosine(_output_over_norm(y, norm), exponent + 1, eps).log()).sum(), 0).to(b.dtype)
        derivative, c = _derivative(y, norm, exponent + 1, eps)
        grad_lin = _times(derivative, grad)
        moment = gy if c is None else gy * c
        grad_norm = _sum_to(moment, norm) * -exponent / norm if ctx.needs_input_grad[1] else None
        if row_norm is not None:
            grad_lin.mul_(row_norm.reciprocal())
            if ctx.needs_input_grad[2]:
                grad_row = -(_sum_to(gy, row_norm) + exponent * _sum_to(moment, row_norm)) / row_norm
        return grad_lin.to(y.dtype), grad_norm, grad_row, grad_b


def _times(buffer: Tensor, grad: Tensor) -> Tensor:
    """buffer * grad in place, unless vmap brings a batch of gradients to one buffer. A fresh one costs more than the product."""
    try:
        return buffer.mul_(grad)
    except RuntimeError:
        return buffer * grad


def _output_over_norm(y: Tensor, norm: Tensor, scale: float | Tensor = 1.0) -> Tensor:
    """scale |y| / n in a buffer of its own."""
    return y.abs().to(norm.dtype).mul_(scale / norm)


def _derivative(y: Tensor, norm: Tensor, b: float | Tensor, eps: float) -> tuple[Tensor, Tensor | None]:
    """s^(B-1) (1 + (B-1) c), in a buffer of its own, and c (None where it is 1), from u = |y| / n = t s^(B-1).

    To first order in eps / t the derivative is B u^((B-1)/B): what eps adds to s it takes from c. Its square is beyond float32 unless |cos| < 1e-5, so
    float32 takes that in one pass and c as 1; float64 is exact.
    """
    if eps and y.dtype == torch.float64:
        s = _shifted_cosine(_output_over_norm(y, norm), b, eps)
        c = 1 - eps / s
        return s ** (b - 1) * (1 + (b - 1) * c), c
    if isinstance(b, float):  # the factor B goes with the norm, which is small
        derivative = _power_(_output_over_norm(y, norm, b ** (b / (b - 1))), (b - 1) / b)
    else:
        derivative = _power_(_output_over_norm(y, norm), (b - 1) / b).mul_(b)
    return derivative.clamp_min_(eps ** (b - 1)) if eps else derivative, None


def _shifted_cosine(u: Tensor, b: float | Tensor, eps: float) -> Tensor:
    """s = t + eps from u = t s^(B-1): u^(1/B) + eps/B to first order in eps/t, and by Newton's method to the precision of float64."""
    s = (u ** (1 / b) + eps / b).clamp_min(max(eps, torch.finfo(u.dtype).tiny))
    for _ in range(3 if u.dtype == torch.float64 else 0):
        power = s ** (b - 1)
        step = ((s - eps) * power - u) / (power * (1 + (b - 1) * (s - eps) / s))
        s = (s - step).clamp_min(eps)
    return s


def _sum_to(x: Tensor, like: Tensor) -> Tensor:
    """Sum `x` over the dimensions in which `like` is broadcast to it."""
    lead = x.dim() - like.dim()
    dims = [*range(lead), *(lead + i for i, size in enumerate(like.shape) if size == 1 and x.shape[lead + i] != 1)]
    return (x.sum(dims, keepdim=True) if dims else x).view(like.shape)


def sum_of_squares(x: Tensor) -> Tensor:
    """Sum of squares of x [..., C, H, W] over C, [..., H, W], in float32 at least."""
    return _run(_SumOfSquares, x)


class _SumOfSquares(torch.autograd.Function):
    """Its gradient, 2 x g, takes one pass; that of torch's square takes three."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        x = wide(x)
        innermost = x.stride(-3) == 1  # there torch's norm over channels costs a third of the squares and their sum, elsewhere five times as much
        return torch.linalg.vector_norm(x, dim=-3).square_() if innermost else x.square().sum(-3)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return (x * (2 * grad).unsqueeze(-3)).to(x.dtype)
