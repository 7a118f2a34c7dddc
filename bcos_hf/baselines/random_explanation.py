"""Random contributions, the floor under every measure."""

from dataclasses import replace

from bcos_hf.metrics.random_scores import random_scores
from bcos_hf.models.bcos_explanation import Explanation

from .input_x_gradient import input_x_gradient


def random_explanation(model, targets=None, contrast=None, seed: int = 0, **inputs) -> Explanation:
    """An Explanation whose contributions are independent uniform numbers in [-1, 1), the same for a seed; arguments as `input_x_gradient`."""
    made = input_x_gradient(model, targets, contrast, **inputs)
    contributions = random_scores(made.contributions, seed)
    residual = made.explained_logits - contributions.flatten(2).sum(-1)
    return replace(made, contributions=contributions, weights=None, residual=residual)
