"""NaN and infinity are refused before they are counted: argmax, sorting and comparison would take them for numbers, and a mean would be printed of them."""

import torch
from torch import Tensor


def check_finite(**values) -> None:
    """Raise a ValueError for NaN or infinity in any of `values`, tensors, arrays or lists by their names.

    Raises:
        ValueError: names them, and says how many are not finite.
    """
    for name, value in values.items():
        given = value if isinstance(value, Tensor) else torch.as_tensor(value)
        if given.is_floating_point() and not bool((finite := given.isfinite()).all()):
            raise ValueError(
                f"{name}: expected finite numbers, got NaN or infinity at {int((~finite).sum())} of {given.numel()} places; look at what made them. "
                "Half precision may have overflowed, or a training diverged."
            )
