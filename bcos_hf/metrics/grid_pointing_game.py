"""Grid pointing game (GridPG): n x n pictures of distinct classes in one; how much of the positive contribution to a class lies in its own cell?

Range [0, 1], higher is better. Chance: 1 / n^2, and 1 - 1 / n^2 with `negative`; baseline: random_scores.py.
Sources: Boehle et al., B-cos Networks, CVPR 2022, section 4; localisation as in Arya et al., B-cosification, NeurIPS 2024. Grids: bcos_hf/metrics/grids.py.
"""

import datasets
import evaluate
import torch
from torch import Tensor

from bcos_hf.metrics.bootstrap import measured
from bcos_hf.metrics.finite import check_finite
from bcos_hf.metrics.grids import grid_side
from bcos_hf.metrics.random_scores import random_scores
from bcos_hf.visualization.image import smoothed


def grid_pointing_shares(contributions: Tensor, smooth: int = 0, negative: bool = False, transposed: bool = False) -> Tensor:
    """Share [G, T] of the positive contribution that is inside the right cell; 0 where there is none at all.

    Args:
        contributions: [G, T, H, W] or [G, T, C, H, W] (channels are summed first): map t explains the class of cell t, T = n * n.
        smooth: side of the window that averages each map before its negative part is cut off, see `smoothed`; 0: none. Published: 15.
        negative: the share of the NEGATIVE contribution outside the right cell; 1 where there is none at all, as published.
        transposed: cell t is at row t % n and column t // n, as published, instead of row t // n and column t % n.

    Raises:
        ValueError: other shapes, contributions that are not finite, a number of maps that is no square, sides that n does not divide, or a negative `smooth`.
    """
    if contributions.ndim not in (4, 5):
        raise ValueError(f"grid_pointing_shares: expected contributions [G, T, H, W] or [G, T, C, H, W], got {list(contributions.shape)}.")
    maps = contributions.to(torch.promote_types(contributions.dtype, torch.float32))
    maps = maps.sum(2) if maps.ndim == 5 else maps
    side, (height, width) = grid_side(maps.shape[1]), maps.shape[-2:]
    if height % side or width % side:
        raise ValueError(f"grid_pointing_shares: expected maps of {side} x {side} equal cells, got {height} x {width} pixels; compose grids of whole cells.")
    if smooth < 0:
        raise ValueError(f"grid_pointing_shares: expected smooth >= 0, got {smooth}.")
    check_finite(contributions=contributions)
    maps = smoothed(maps, smooth)
    positive = (-maps if negative else maps).clamp_min(0)
    cells = positive.unflatten(-1, (side, width // side)).unflatten(-3, (side, height // side)).sum((-3, -1))
    own = (cells.mT if transposed else cells).flatten(-2).diagonal(dim1=1, dim2=2)
    total = cells.sum((-2, -1))
    share = torch.where(total == 0, 0.0, own / total)
    return 1 - share if negative else share


class GridPointingGame(evaluate.Metric):
    """`compute(predictions=contributions [G, T, H, W], smooth=15)`: mean share with its 95 % interval, grids resampled."""

    def _info(self):
        maps = datasets.Sequence(datasets.Sequence(datasets.Sequence(datasets.Value("float32"))))
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Boehle et al., B-cos Networks: Alignment is All We Need for Interpretability, CVPR 2022.",
            inputs_description="predictions: for each grid T = n * n maps [T, H, W], map t for the class of cell t; options of grid_pointing_shares.",
            features=datasets.Features({"predictions": maps}),
        )

    def _compute(self, predictions, smooth=0, negative=False, transposed=False, seed=0):
        given = torch.tensor(predictions)
        ours, random = (grid_pointing_shares(maps, smooth, negative, transposed).mean(1) for maps in (given, random_scores(given, seed)))
        return measured("grid_pointing_game", ours, random, seed)
