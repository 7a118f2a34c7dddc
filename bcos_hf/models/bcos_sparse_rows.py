"""A linear layer whose backward pass skips rows without gradient.

A head that reads one token sends the last transformer layer gradients of that token only: 127 of 128 rows of its two largest products are zeros. On a CPU
these products are what an explanation waits for, and leaving them out is exact.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def linear_by_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` of x [..., in] for a weight [out, in] that needs no gradient -> [..., out]."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():  # finding the rows would wait for an accelerator, and break a graph
        return F.linear(x, weight, bias)
    return _LinearByRows.apply(x, weight, bias)


def rows_with_gradient(grad: Tensor) -> Tensor | None:
    """Numbers of the rows of grad [R, C] that are not all zeros; None if they are half of all or more, or if vmap hides them."""
    try:
        if 2 * grad[:, 0].count_nonzero() >= len(grad):  # one column, which costs nothing, tells the usual case
            return None
        rows = grad.abs().amax(1).nonzero()[:, 0]
    except RuntimeError:
        return None
    return rows if 2 * len(rows) < len(grad) else None


class _LinearByRows(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx, grad: Tensor):
        (weight,) = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        rows = rows_with_gradient(flat)
        if rows is None:
            return grad @ weight, None, None
        made = flat.new_zeros(len(flat), weight.shape[1]).index_copy(0, rows, flat[rows] @ weight)
        return made.view(*grad.shape[:-1], -1), None, None
