"""What does a measure give for no explanation at all? Uniform scores in [-1, 1), to be put through the same function in the place of contributions."""

import torch
from torch import Tensor


def random_scores(contributions: Tensor, seed: int = 0) -> Tensor:
    """Independent uniform scores of the shape and device of `contributions`, float32 or wider; the same for a seed on every device."""
    uniform = torch.rand(contributions.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return uniform.to(contributions.device, torch.promote_types(contributions.dtype, torch.float32))
