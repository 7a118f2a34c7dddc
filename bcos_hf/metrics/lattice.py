"""Lattice: how unequally the positions of a p x p cell take part in explanations, whatever the images show.

Layers with a stride read some positions more than others, which lays a lattice over every map. Over many images and cells
all phases should have the same share of the contributions' size. Measured is the standard deviation of the p x p phases
over their mean. Range [0, p], lower is better, 0: no lattice. Chance: 0 for many images; baseline: random_scores.py.
Phases of few pixels differ by chance, so compare with the baseline on the same number of images.
"""

import datasets
import evaluate
import torch
from torch import Tensor

from bcos_hf.metrics.finite import check_finite
from bcos_hf.metrics.random_scores import random_scores


def lattice_strength(contributions: Tensor, period: int = 32) -> float:
    """The deviation of the mean |contribution| of each phase over their mean, of maps [N, H, W]; each map counts the same.

    Args:
        contributions: one map an image; what remains beside whole cells is left out. A map of zeros counts for nothing.
        period: p, the side of a cell in pixels; 32 is the product of all strides of a ResNet.

    Raises:
        ValueError: another shape, contributions that are not finite, or maps smaller than a cell.
    """
    return _strength(_phases(contributions, period))


def _phases(contributions: Tensor, period: int) -> Tensor:
    """The mean |contribution| of each phase over that of the map, [N, p, p]."""
    if contributions.ndim != 3 or period < 2 or min(contributions.shape[1:]) < period:
        raise ValueError(
            f"lattice_strength: expected contributions [N, H, W] and a period from 2 to their sides, got "
            f"{list(contributions.shape)} and {period}."
        )
    check_finite(contributions=contributions)
    sizes = contributions.to(torch.promote_types(contributions.dtype, torch.float32)).abs()
    rows, columns = (side // period for side in sizes.shape[1:])
    cells = sizes[:, : rows * period, : columns * period].unflatten(2, (columns, period)).unflatten(1, (rows, period))
    phases = cells.mean((1, 3))
    mean = phases.mean((1, 2), keepdim=True)
    return torch.where(mean == 0, 0.0, phases / mean)


def _strength(phases: Tensor) -> float:
    mean = phases.mean(0)
    return (mean.std(unbiased=False) / mean.mean()).item() if mean.any() else 0.0


class Lattice(evaluate.Metric):
    """`compute(predictions=contributions [N, H, W], period=32)`: the strength, of random maps as well."""

    def _info(self):
        maps = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019, on what the lattice comes from.",
            inputs_description="predictions: maps [H, W], one an image; period: side of a cell in pixels.",
            features=datasets.Features({"predictions": maps}),
        )

    def _compute(self, predictions, period=32, seed=0):
        given = torch.tensor(predictions)
        random = random_scores(given, seed)
        return {"lattice": lattice_strength(given, period), "random": lattice_strength(random, period), "n": len(given)}
