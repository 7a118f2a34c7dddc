"""Pixel deletion and insertion: how does the probability of a class go as pixels are removed, or appear, in the order of their contributions?

Area under the probability over the fraction of pixels, range [0, 1].
- Deletion, most important first: lower is better. Least important first (pixel removal of B-cos): higher is better.
- Insertion, most important first: higher is better.
Chance depends on the model: measure it with random_scores.py.
Sources: Petsiuk et al., RISE, BMVC 2018; least important first: Srinivas & Fleuret, NeurIPS 2019, as used for B-cos Networks, Boehle et al., CVPR 2022.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm


def blurred(images: Tensor, size: int = 11, sigma: float = 5.0) -> Tensor:
    """Images [N, C, H, W] under a Gaussian of odd `size` and `sigma` pixels (RISE: 11 and 5); outside, the border goes on."""
    offsets = torch.arange(size, device=images.device, dtype=images.dtype) - size // 2
    weights, channels = (-(offsets**2) / (2 * sigma**2)).softmax(0), images.shape[1]
    padded = F.pad(images, (size // 2,) * 4, mode="replicate")
    rows = F.conv2d(padded, weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(rows, weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


FILLS = {"zero": torch.zeros_like, "blur": blurred}


def deletion_curve(predict: Callable[[Tensor], Tensor], images: Tensor, contributions: Tensor, targets: Tensor, fill="zero", **options):
    """The probability as pixels are replaced by `fill`. Args, Returns and Raises: as for `insertion_curve`."""
    return _curves(predict, images, fill, False, contributions, targets, **options)


def insertion_curve(predict: Callable[[Tensor], Tensor], images: Tensor, contributions: Tensor, targets: Tensor, fill="blur", **options):
    """The probability of the targets as the pixels of `images` replace `fill`. At most `batch_size` pictures are in work at a time.

    Args:
        predict: images [n, C, H, W] -> probabilities [n, classes] of a model in evaluation mode. images: [N, C, H, W].
        contributions: [N, H, W]; equal ones go in the order of pixels. targets: [N].
        fill: "zero" (in normalised pixels: the mean colour), "blur", a number, or a tensor that broadcasts to the images.
        steps=100: parts of the pixels, equal up to rounding. most_important_first=True: the order. batch_size=32.

    Returns:
        (curve [N, steps + 1], from none to all pixels replaced; area [N] under it by trapezoids, over fractions 0 to 1).

    Raises:
        ValueError: other shapes, contributions that are not finite, unknown fill, too many steps, or `predict` giving no probabilities of the targets.
    """
    return _curves(predict, images, fill, True, contributions, targets, **options)


def curve_area(curve: Tensor) -> Tensor:
    """Area [N] under curves [N, steps + 1] by trapezoids, at equal distances from 0 to 1. Raises ValueError for fewer than two points."""
    if curve.ndim != 2 or curve.shape[1] < 2:
        raise ValueError(f"curve_area: expected curves [N, steps + 1] of at least two points, got {list(curve.shape)}.")
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1), dim=1)


@torch.no_grad()
def _curves(predict, images, fill, insert, contributions, targets, steps=100, most_important_first=True, batch_size=32):
    targets = torch.as_tensor(targets, device=images.device)
    contributions = contributions.to(images.device)
    _check(images, contributions, targets, fill, steps, batch_size)
    pixels, curves = contributions[0].numel(), []
    for start in tqdm(range(0, len(images), batch_size), desc="replacing pixels", leave=False):
        part = slice(start, start + batch_size)
        before, after = images[part], _filled(images, fill, part)
        before, after = (after, before) if insert else (before, after)
        order = contributions[part].flatten(1).argsort(dim=1, descending=most_important_first, stable=True)
        ranks = order.argsort(dim=1).view_as(contributions[part])[:, None]
        mixed = (torch.where(ranks < pixels * step // steps, after, before) for step in range(steps + 1))
        curves.append(torch.stack([_probabilities(predict(x), targets[part]) for x in mixed], 1))
    curve = torch.cat(curves)
    return curve, curve_area(curve)


def _filled(images: Tensor, fill, part: slice) -> Tensor:
    if isinstance(fill, str):
        return FILLS[fill](images[part])
    return torch.as_tensor(fill, dtype=images.dtype, device=images.device).expand_as(images)[part]


def _probabilities(made: Tensor, targets: Tensor) -> Tensor:
    """Those [n] of the targets, of `made` [n, classes]."""
    if made.ndim != 2 or len(made) != len(targets) or targets.min() < 0 or targets.max() >= made.shape[1]:
        raise ValueError(f"predict: expected probabilities [{len(targets)}, classes] with targets {targets.tolist()}, got {list(made.shape)}.")
    chosen = made.to(torch.promote_types(made.dtype, torch.float32)).gather(1, targets[:, None].to(made.device))[:, 0]
    if not ((chosen >= 0) & (chosen <= 1 + 1e-4)).all():
        raise ValueError(f"predict: expected probabilities from 0 to 1, got {chosen.tolist()[:8]}; put the logits through a sigmoid or softmax.")
    return chosen


def _check(images: Tensor, contributions: Tensor, targets: Tensor, fill, steps: int, batch_size: int) -> None:
    count, _, height, width = images.shape if images.ndim == 4 else (0, 0, 0, 0)
    if not count or contributions.shape != (count, height, width) or targets.shape != (count,):
        shapes = [list(x.shape) for x in (images, contributions, targets)]
        raise ValueError(f"expected images [N, C, H, W], contributions [N, H, W] and targets [N], N at least 1, got {shapes}.")
    if not contributions.isfinite().all():
        raise ValueError("expected finite contributions, which can be ranked; look at what made them.")
    if isinstance(fill, str) and fill not in FILLS:
        raise ValueError(f"fill: expected one of {sorted(FILLS)}, a number or a tensor, got {fill!r}.")
    if not 1 <= steps <= height * width or batch_size < 1:
        raise ValueError(f"expected 1 <= steps <= {height * width} (the pixels) and batch_size >= 1, got {steps} and {batch_size}.")
