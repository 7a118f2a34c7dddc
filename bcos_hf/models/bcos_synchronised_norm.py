"""The uncentred batch norm of a batch that lies on several processes: one variance over all of it, and the gradient that belongs to it.

With N pictures' numbers a channel, over all processes, mean m and biased variance v:  y = s x + beta,  s = gamma / sqrt(v + eps), so that

    dL/dx = s g - gamma (v + eps)^(-3/2) (x - m) S / N,    S = sum over all processes of g x

where L is the sum of the processes' losses. On CPUs too, where torch's SyncBatchNorm does not run.
"""

import torch
from torch import Tensor
from torch import distributed as dist

from .bcos_precision import wide


def processes() -> int:
    """How many processes train together; 1 where none were started."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def synchronised_scaling(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """gamma x / sqrt(var + eps) + beta of x [N, C, H, W] and the variance [C] over the pictures of all processes, of which each has some."""
    return _Scaling.apply(x, weight, bias, eps)[:2]


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance of each channel over all processes, [C], and how many numbers they are of."""
    var, mean = torch.var_mean(wide(x), (0, 2, 3), correction=0)
    count = torch.full_like(mean[:1], x.numel() / x.shape[1])
    own = torch.cat([mean, var, count])
    gathered = [torch.empty_like(own) for _ in range(processes())]
    dist.all_gather(gathered, own)
    means, variances, counts = torch.stack(gathered).split([len(mean), len(var), 1], dim=1)
    share = counts / counts.sum()
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean).square())).sum(0), counts.sum()


class _Scaling(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        mean, var, count = _statistics(x)
        inverse = (var + eps).rsqrt()
        ctx.has_bias = bias is not None
        ctx.save_for_backward(x, weight, mean, inverse, count)
        ctx.mark_non_differentiable(var)
        scale = inverse if weight is None else inverse * weight
        y = wide(x) * scale.view(-1, 1, 1)
        return (y if bias is None else y + bias.view(-1, 1, 1)).to(x.dtype), var

    @staticmethod
    def backward(ctx, grad: Tensor, _):
        x, weight, mean, inverse, count = ctx.saved_tensors
        x, grad = wide(x), wide(grad)
        own = (grad * x).sum((0, 2, 3))
        total = own.clone()
        dist.all_reduce(total)
        scale = inverse if weight is None else inverse * weight
        slope = (scale * inverse.square() * total / count).view(-1, 1, 1)
        grad_x = grad * scale.view(-1, 1, 1) - (x - mean.view(-1, 1, 1)) * slope
        grad_weight = None if weight is None else (own * inverse).to(weight.dtype)
        return grad_x.to(ctx.saved_tensors[0].dtype), grad_weight, grad.sum((0, 2, 3)) if ctx.has_bias else None, None
