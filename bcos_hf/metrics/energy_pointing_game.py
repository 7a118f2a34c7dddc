"""Energy pointing game: how much of the positive contribution to a class lies inside the box, or the mask, of its object?

Range [0, 1], higher is better. Chance: the region's share of the picture's area; baseline: random_scores.py.
Source: Wang et al., Score-CAM, CVPR Workshops 2020.
"""

import datasets
import evaluate
import torch
from torch import Tensor

from bcos_hf.metrics.bootstrap import measured
from bcos_hf.metrics.finite import check_finite
from bcos_hf.metrics.random_scores import random_scores


def box_masks(boxes: Tensor, height: int, width: int) -> Tensor:
    """Masks, bool [N, height, width], of boxes [N, 4]: (x0, y0, x1, y1) in pixels, half-open; pixel (x, y) is inside if x0 <= x < x1 and y0 <= y < y1.

    Raises:
        ValueError: boxes of another shape, empty, or reaching out of the picture.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"box_masks: expected boxes [N, 4] as (x0, y0, x1, y1), got {list(boxes.shape)}.")
    x0, y0, x1, y1 = (edge[:, None] for edge in boxes.T)
    wrong = ~((x0 >= 0) & (x0 < x1) & (x1 <= width) & (y0 >= 0) & (y0 < y1) & (y1 <= height)).flatten()
    if wrong.any():
        raise ValueError(f"box_masks: expected 0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}, in pixels of the map, got {boxes[wrong][0].tolist()}.")
    x, y = torch.arange(width, device=boxes.device), torch.arange(height, device=boxes.device)
    return ((y >= y0) & (y < y1))[:, :, None] & ((x >= x0) & (x < x1))[:, None, :]


def energy_pointing_shares(contributions: Tensor, regions: Tensor) -> Tensor:
    """Share [N] of the positive contribution that is inside the region; 0 where there is none at all.

    Args:
        contributions: [N, H, W], one map a picture. regions: boxes [N, 4] as for `box_masks`, or masks [N, H, W] of 0 and 1; several boxes: unite masks.

    Raises:
        ValueError: other shapes, contributions that are not finite, boxes out of the picture, or masks that are empty or have other values than 0 and 1.
    """
    if contributions.ndim != 3:
        raise ValueError(f"energy_pointing_shares: expected contributions [N, H, W], one map a picture, got {list(contributions.shape)}; choose a target.")
    masks = box_masks(regions, *contributions.shape[1:]) if regions.ndim == 2 else regions
    if masks.shape != contributions.shape:
        raise ValueError(
            f"energy_pointing_shares: expected regions [N, 4] or [N, H, W] for contributions {list(contributions.shape)}, got {list(regions.shape)}."
        )
    inside = masks.to(contributions.device).bool()
    if (masks.to(inside.device) != inside).any() or not inside.flatten(1).any(1).all():
        raise ValueError("energy_pointing_shares: expected masks of 0 and 1 with at least one pixel each.")
    check_finite(contributions=contributions)
    positive = contributions.to(torch.promote_types(contributions.dtype, torch.float32)).clamp_min(0)
    total = positive.sum((1, 2))
    part = positive.masked_fill(~inside, 0).sum((1, 2))
    return torch.where(total == 0, 0.0, part / total)


class EnergyPointingGame(evaluate.Metric):
    """`compute(predictions=contributions [N, H, W], references=boxes [N, 4] or masks [N, H, W])`: mean share with its 95 % interval."""

    def _info(self):
        number, row = datasets.Value("float32"), datasets.Sequence(datasets.Value("float32"))
        maps = datasets.Sequence(row)
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Wang et al., Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks, CVPR Workshops 2020.",
            inputs_description="predictions: maps [H, W]; references: boxes (x0, y0, x1, y1) in pixels, half-open, or masks [H, W] of 0 and 1.",
            features=[datasets.Features({"predictions": maps, "references": regions}) for regions in (datasets.Sequence(number), maps)],
        )

    def _compute(self, predictions, references, seed=0):
        given, regions = torch.tensor(predictions), torch.tensor(references)
        ours, random = (energy_pointing_shares(maps, regions) for maps in (given, random_scores(given, seed)))
        return measured("energy_pointing_game", ours, random, seed)
