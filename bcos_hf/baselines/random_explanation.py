"""Random contributions, the floor under every measure."""

import torch

from bcos_hf.metrics.random_scores import random_scores
from bcos_hf.models.bcos_explanation import Explanation

from .explained_function import attributed, on_device, unexplained


def random_explanation(model, targets=None, contrast=None, seed: int | torch.Generator = 0, **inputs) -> Explanation:
    """An Explanation of independent uniform numbers in [-1, 1), see `random_scores` for the seed; other arguments as `input_x_gradient`."""
    made, _ = unexplained(model, targets, contrast, on_device(model, inputs))
    return attributed(made, random_scores(made.contributions, seed))
