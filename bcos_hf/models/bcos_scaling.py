"""The B-cos scaling, y = lin * (|lin| / n)^(B-1), with a backward pass that needs its output and the norms only.

Autograd would keep lin, |lin|, the quotient and the power, five tensors of the output's size. But the scaling can be inverted: with
t = |lin| / n the output is |y| / n = t (t + eps)^(B-1), from which t, and with it every derivative, comes back. y is kept by the next layer anyway
(an activation or a linear layer saves its input), so that training a B-cos layer keeps almost nothing that plain training does not.

Derivatives, with s = t + eps, c = t / s and unit rows lin = raw / |w|:
    dy/draw = s^(B-1) (1 + (B-1) c) / |w|        n dy/dn = -(B-1) c y        |w| dy/d|w| = -(1 + (B-1) c) y        dy/dB = y log s
"""

import torch
from torch import Tensor


COSINE_EPS = 1e-6  # the published (|cos| + 1e-6)^(B-1); B = 2 has none


def _eps(b: float | Tensor) -> float:
    return 0.0 if isinstance(b, float) and b == 2 else COSINE_EPS


def _power(s: Tensor, exponent: float | Tensor) -> Tensor:
    """s^exponent, by the square root where that is the power: torch's pow costs six times as much."""
    if isinstance(exponent, float) and exponent in (0.5, 1.0):
        return s.sqrt() if exponent == 0.5 else s
    return s**exponent


def _exponent(b: float | Tensor) -> float | Tensor:
    """B - 1; a learned B below 1 acts as 1."""
    return b.clamp_min(1) - 1 if isinstance(b, Tensor) else b - 1


def cosine_factor(lin: Tensor, norm: Tensor, b: float | Tensor) -> Tensor:
    """(|lin| / norm + eps)^(B-1), the input-dependent factor of a B-cos layer, in the dtype of `norm`."""
    cosine = lin.abs().to(norm.dtype).div_(norm)
    eps = _eps(b)
    return _power(cosine.add_(eps) if eps else cosine, _exponent(b))


def bcos_scaling(lin: Tensor, norm: Tensor, row_norm: Tensor | None = None, b: float | Tensor = 2.0) -> Tensor:
    """lin / row_norm times its cosine factor.

    Args:
        lin: w . x, any shape.
        norm: norm of the input that each output sees, broadcastable to lin.
        row_norm: |w|, broadcastable to lin; None where weights are not normalised.
        b: B, a float or a scalar tensor.
    """
    return _Scaling.apply(lin, norm, row_norm, b)


class _Scaling(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(lin: Tensor, norm: Tensor, row_norm: Tensor | None, b: float | Tensor) -> Tensor:
        unit = lin if row_norm is None else lin / row_norm
        return (cosine_factor(unit, norm, b) * unit).to(lin.dtype)

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
        s = _shifted_cosine(y.abs() / norm, exponent + 1, eps)
        gain = exponent * (1 - eps / s) if eps else exponent  # (B-1) c
        gy = grad * y
        grad_lin = grad * _power(s, exponent).mul_(1 + gain)
        grad_norm = _sum_to(gy * -gain, norm).div(norm) if ctx.needs_input_grad[1] else None
        grad_row = grad_b = None
        if row_norm is not None:
            grad_lin = grad_lin / row_norm
            grad_row = _sum_to(gy * -(1 + gain), row_norm).div(row_norm) if ctx.needs_input_grad[2] else None
        if ctx.needs_input_grad[3]:
            grad_b = torch.where(b >= 1, (gy * s.log()).sum(), 0).to(b.dtype)
        return grad_lin.to(y.dtype), grad_norm, grad_row, grad_b


def _shifted_cosine(u: Tensor, b: float | Tensor, eps: float) -> Tensor:
    """s = t + eps from u = t (t + eps)^(B-1).

    u^(1/B) + eps/B is right to second order in eps/t, which is beyond float32 unless |cos| < 1e-5; float64 gets Newton steps to its own precision.
    """
    s = u ** (1 / b)
    if not eps:
        return s
    s = (s + eps / b).clamp_min(eps)
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
