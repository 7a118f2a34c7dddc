"""Float32 at least: what norms, variances and sums of squares are taken in. 1e-12 is 0 in float16, and a sum of squares overflows there."""

import torch
from torch import Tensor


def wide_dtype(x: Tensor) -> torch.dtype:
    """The dtype of x, or float32 where that is narrower."""
    return torch.promote_types(x.dtype, torch.float32)


def wide(x: Tensor) -> Tensor:
    """x in float32 at least."""
    return x.to(wide_dtype(x))
