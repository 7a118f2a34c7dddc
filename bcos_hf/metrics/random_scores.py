"""What does a measure give for no explanation at all? Uniform scores in [-1, 1), to be put through the same function in the place of contributions."""

import torch
from torch import Tensor


def random_scores(contributions: Tensor, seed: int | torch.Generator = 0) -> Tensor:
    """Independent uniform scores of the shape and device of `contributions`, float32 or wider; the same for a seed on every device.

    A CPU generator in the place of a seed goes on from call to call, so that maps that are made one at a time differ.
    """
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    uniform = torch.rand(contributions.shape, generator=generator) * 2 - 1
    return uniform.to(contributions.device, torch.promote_types(contributions.dtype, torch.float32))
