"""Grid pictures for the grid pointing game: which pictures, put together how, and explained in windows where a model takes one size only.

A picture may enter if it is classified correctly and confidently: sigmoid(logit of its class) > threshold. The classes of a grid are distinct.
Sources: Boehle et al., CVPR 2022, section 4; the protocol as run: Boehle et al., TPAMI 2024, and Arya et al., NeurIPS 2024.
"""

import math
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .finite import check_finite


def grid_side(cells: int) -> int:
    """n of a grid of n x n cells. Raises ValueError unless `cells` is the square of 2 or more."""
    side = math.isqrt(cells)
    if side < 2 or side * side != cells:
        raise ValueError(f"expected n * n cells a grid with n >= 2 (4, 9, 16 ...), got {cells}.")
    return side


def confident_pictures(confidences: Tensor, labels: Tensor, threshold: float = 0.5, predictions: Tensor | None = None) -> dict[int, list[int]]:
    """Class -> the indices of its confidently and correctly classified pictures, most confident first.

    Args:
        confidences: [M], logit of the class of each picture. labels: [M].
        predictions: [M], predicted classes; None: only pictures that are classified correctly were given.

    Raises:
        ValueError: shapes that differ, or confidences that are not finite.
    """
    confidences, labels = torch.as_tensor(confidences, dtype=torch.float64).cpu(), torch.as_tensor(labels).cpu()
    predictions = labels if predictions is None else torch.as_tensor(predictions).cpu()
    if confidences.ndim != 1 or not confidences.shape == labels.shape == predictions.shape:
        shapes = [list(x.shape) for x in (confidences, labels, predictions)]
        raise ValueError(f"expected confidences, labels and predictions of one shape [M], got {shapes}.")
    check_finite(confidences=confidences)
    taken = (confidences.float().sigmoid().double() > threshold) & (predictions == labels)  # in float32, as published
    pictures = {label: [] for label in labels.unique().tolist()}
    for index in confidences.argsort(descending=True, stable=True).tolist():
        if taken[index]:
            pictures[int(labels[index])].append(index)
    return pictures


def _blocks(pictures: dict[int, list[int]], n_cells: int, generator, spare: int) -> Iterator[list[int]]:
    """Blocks of one picture each of `n_cells` random classes, the most confident that is left, while `n_cells + spare` classes have any."""
    left = {label: iter(indices) for label, indices in pictures.items()}
    count = {label: len(indices) for label, indices in pictures.items()}
    while len(classes := [label for label in sorted(left) if count[label]]) >= n_cells + spare:
        block = generator.choice(classes, n_cells, replace=False).tolist()
        for label in block:
            count[label] -= 1
        yield [next(left[label]) for label in block]


def _as_grids(grids: list[list[int]], n_cells: int, count: int, pictures: dict[int, list[int]], threshold: float) -> Tensor:
    if len(grids) < count:
        classes, confident = sum(map(bool, pictures.values())), sum(map(len, pictures.values()))
        raise ValueError(
            f"expected pictures for {count} grids of {n_cells} distinct classes, found enough for {len(grids)}: {confident} pictures of {classes} classes "
            f"are classified correctly with a confidence above {threshold}. Ask for fewer grids or cells, lower the threshold or give more pictures."
        )
    return torch.tensor(grids, dtype=torch.long).view(count, n_cells)


def sample_grids(
    confidences: Tensor, labels: Tensor, n_cells: int, count: int, seed: int = 0, threshold: float = 0.5, predictions: Tensor | None = None
) -> Tensor:
    """Indices of the pictures of `count` grids, int64 [count, n_cells]: random classes, of each the most confident picture not used yet.

    Args:
        confidences, labels, threshold, predictions: as for `confident_pictures`. n_cells: cells a grid, n * n.

    Raises:
        ValueError: too few pictures or classes, shapes that differ, or a number of cells that is no square.
    """
    grid_side(n_cells)
    pictures = confident_pictures(confidences, labels, threshold, predictions)
    grids = list(islice(_blocks(pictures, n_cells, np.random.default_rng(seed), spare=0), count))
    return _as_grids(grids, n_cells, count, pictures, threshold)


def published_order(confidences: Tensor, labels: Tensor, n_cells: int, threshold: float = 0.5, predictions: Tensor | None = None) -> list[int]:
    """All pictures in the order of the published evaluation: seed 42, blocks while MORE than `n_cells` classes are left."""
    pictures = confident_pictures(confidences, labels, threshold, predictions)
    return [index for block in _blocks(pictures, n_cells, np.random.RandomState(42), spare=1) for index in block]


def published_grid(order: list[int], labels: Tensor, n_cells: int, offset: int) -> tuple[list[int], int] | None:
    """The published choice from `order` at `offset`: pictures of distinct classes, and the next offset; None where the order ends before.

    The next offset is one too far, so that grids leave the blocks, pictures are passed over, and a class that comes again is skipped. Kept for parity.
    """
    chosen = {}
    for position in range(offset, len(order)):
        chosen.setdefault(int(labels[order[position]]), order[position])
        if len(chosen) == n_cells:
            return list(chosen.values()), position + 2
    return None


def published_grids(confidences: Tensor, labels: Tensor, n_cells: int, count: int, threshold: float = 0.5, predictions: Tensor | None = None) -> Tensor:
    """The grids of the published evaluation, drift of the offset included, int64 [count, n_cells]; to be composed with `transposed=True`.

    Args and Raises: as for `sample_grids`.
    """
    grid_side(n_cells)
    order, grids, offset = published_order(confidences, labels, n_cells, threshold, predictions), [], 0
    while len(grids) < count and (made := published_grid(order, labels, n_cells, offset)):
        grids.append(made[0])
        offset = made[1]
    return _as_grids(grids, n_cells, count, confident_pictures(confidences, labels, threshold, predictions), threshold)


def compose_grids(images: Tensor, indices: Tensor, transposed: bool = False) -> Tensor:
    """Grid pictures [G, C, n*h, n*w] of images [M, C, h, w] and indices [G, n*n].

    Picture i is at row i // n and column i % n; `transposed`, as published: at row i % n and column i // n.

    Raises:
        ValueError: wrong shapes, or a number of cells that is no square.
    """
    if images.ndim != 4 or indices.ndim != 2:
        raise ValueError(f"compose_grids: expected images [M, C, h, w] and indices [G, n*n], got {list(images.shape)} and {list(indices.shape)}.")
    side = grid_side(indices.shape[1])
    channels, height, width = images.shape[1:]
    cells = images[indices.to(images.device)].view(-1, side, side, channels, height, width)
    cells = cells.transpose(1, 2) if transposed else cells
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, side * height, side * width)


def strided_contributions(explain: Callable[[Tensor], Tensor], grids: Tensor, window: int, stride: int) -> Tensor:
    """Contributions [G, T, H, W] to grids [G, C, H, W] from a model that takes pictures of one size: a window slides and overlapping maps are summed.

    Published for ViTs: 2 x 2 grids, window 224 (a cell), stride 112. The margin is zeros, so wide that every pixel is seen (window / stride)^2 times.

    Args:
        explain: windows [G, C, window, window] -> contributions [G, T, window, window], to the same T targets in every window.
        grids: in the space in which zero says nothing (normalised pixels). window, stride: pixels.

    Raises:
        ValueError: a stride that does not divide the window and both sides of the grids.
    """
    height, width = grids.shape[-2:]
    if stride < 1 or window % stride or height % stride or width % stride:
        raise ValueError(f"strided_contributions: expected a stride that divides the window {window} and the grid {height} x {width}, got {stride}.")
    margin, total = window - stride, None
    padded = F.pad(grids, (margin,) * 4)
    for top in range(0, height + margin, stride):
        for left in range(0, width + margin, stride):
            maps = explain(padded[..., top : top + window, left : left + window]).detach()
            total = maps.new_zeros(*maps.shape[:2], *padded.shape[-2:]) if total is None else total
            total[..., top : top + window, left : left + window] += maps
    return total[..., margin : margin + height, margin : margin + width]
