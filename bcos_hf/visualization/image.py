"""Explanations of pictures as arrays: the colour explanation of B-cos networks, signed maps, overlays and grids. Pure functions on tensors.

Pictures are [..., H, W, 3] and maps [..., H, W, 4] (red, green, blue, opacity), all in [0, 1]. Leading dimensions are a batch, and every picture of it is
scaled on its own. A map of something constant or zero is finite.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .figures import AGAINST, FOR


FLOOR = 1e-12  # as published: keeps divisions finite


def smoothed(values: Tensor, smooth: int | None) -> Tensor:
    """Mean of values [..., H, W] over a square of `smooth` pixels, zeros outside counted; the shape stays, None, 0 and 1 change nothing.

    The square of pixel i reaches from i - (smooth - 1) // 2 to i + smooth // 2: it is centred where `smooth` is odd (as published), and an even one
    has its additional pixel below and to the right (the published code gives even sizes one row and column less).

    Raises a ValueError for a negative or fractional `smooth`.
    """
    if smooth is not None and (smooth != int(smooth) or smooth < 0):
        raise ValueError(f"smooth: expected a whole number of pixels >= 0, or None, got {smooth!r}")
    if smooth is None or smooth <= 1:
        return values
    before, after = (int(smooth) - 1) // 2, int(smooth) // 2
    flat = F.pad(values.reshape(-1, 1, *values.shape[-2:]), (before, after, before, after))
    rows = F.avg_pool2d(flat, (int(smooth), 1), stride=1)  # one direction after the other: 2 s numbers a pixel instead of s^2
    return F.avg_pool2d(rows, (1, int(smooth)), stride=1).reshape(values.shape)


def percentile(values: Tensor, percent: float) -> Tensor:
    """The `percent`-th percentile of values [..., H, W] over H and W, linear between ranks, [..., 1, 1]: torch.quantile without its limit of 2**24 numbers.

    Raises a ValueError for a percentile outside 0 to 100.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"percentile: expected 0 to 100, got {percent!r}")
    ranked = values.flatten(-2).sort(-1).values
    rank = percent / 100 * (ranked.shape[-1] - 1)
    lower, upper = ranked[..., math.floor(rank)], ranked[..., math.ceil(rank)]
    return (lower + (upper - lower) * (rank - math.floor(rank)))[..., None, None]


def gradient_to_image(weights: Tensor, contributions: Tensor, smooth: int | None = 15, alpha_percentile: float = 99.5) -> Tensor:
    """The colour explanation: the colour that the weights of a pixel look for, as opaque as those weights are strong, where the pixel speaks for the class.

    Colour: the positive weights of a pixel, each channel's share of it and its inverse. Opacity: the norm of the weights, nothing where the pixel contributes
    less than zero, smoothed, over its percentile. Weights times a positive number give the same picture. It differs from the published code only where that
    shows something else than meant: pixels that speak against have strength 0, not 1e-12, which makes all opaque once 99.5 % of them speak against; a
    picture without any weight is transparent, not NaN.

    Args:
        weights: [..., 2C, H, W] rows of W(x) for the encoding [z, -z] or [x, 1 - x], C = 3 (colour) or 1 (grey).
        contributions: [..., H, W], (encoded input * weights) summed over channels; only their sign matters.
        smooth: side of the averaging square in pixels, see `smoothed`; 15 is published for 224 x 224.
        alpha_percentile: the strength in 0 to 100 from which on a pixel is opaque.

    Returns:
        [..., H, W, 4] in [0, 1], float32 at least.

    Raises:
        ValueError: weights without two or six channels, contributions of another size, bad `smooth` or percentile.

    Source: Boehle et al., CVPR 2022 (arXiv 2205.10268), section 3.2 and the supplement on visualisation; B-cos v2 (arXiv 2306.10898).
    """
    if weights.dim() < 3 or weights.shape[-3] not in (2, 6):
        raise ValueError(f"weights: expected [..., 6, H, W] (or 2 channels for grey), got {list(weights.shape)}: without the inverse channels use signed_map")
    if contributions.shape != weights.shape[:-3] + weights.shape[-2:]:
        raise ValueError(f"contributions: expected {list(weights.shape[:-3] + weights.shape[-2:])} for these weights, got {list(contributions.shape)}")
    weights = _wide(weights)
    weights = _over(weights, weights.abs().amax((-3, -2, -1), keepdim=True))  # so that tiny ones neither drown in FLOOR nor vanish when squared
    positive = (weights / (weights.abs().amax(-3, keepdim=True) + FLOOR)).clamp(min=0)
    colour, inverse = positive.chunk(2, -3)
    colour = (colour / (colour + inverse + FLOOR)).expand(*colour.shape[:-3], 3, *colour.shape[-2:])
    strength = smoothed(weights.norm(dim=-3).masked_fill(contributions < 0, 0), smooth)
    alpha = _over(strength, percentile(strength, alpha_percentile)).clamp(0, 1)
    return torch.cat([colour, alpha.unsqueeze(-3)], -3).movedim(-3, -1)


def signed_map(contributions: Tensor, smooth: int | None = 0, percentile: float = 99.5) -> Tensor:
    """Contributions [..., H, W] as [..., H, W, 4]: orange speaks for the class, blue against it, zero is transparent.

    Opacity is |contribution| over the `percentile`-th percentile of it (see `peak`), so equal strengths look equally strong on either side. Orange and blue
    are told apart by all common kinds of colour vision. Raises a ValueError for a bad `smooth` or percentile.
    """
    values = smoothed(_wide(contributions), smooth)
    alpha = _over(values.abs(), peak(values, percentile)).clamp(0, 1)
    colour = torch.where((values > 0)[..., None], _rgb(FOR, values), _rgb(AGAINST, values))
    return torch.cat([colour, alpha[..., None]], -1)


def peak(values: Tensor, percent: float = 99.5) -> Tensor:
    """The |value| [..., 1, 1] that `signed_map` shows in full colour: the percentile of |values| [..., H, W]; where that is 0, the largest."""
    sizes = values.abs()
    wanted = percentile(sizes, percent)
    return torch.where(wanted > 0, wanted, sizes.amax((-2, -1), keepdim=True))


def overlay(picture: Tensor, colours: Tensor, strength: float = 1.0) -> Tensor:
    """A map [..., H, W, 4] laid over a picture [..., H, W, 3] or over one colour [3], its opacity times `strength` in 0 to 1: [..., H, W, 3]."""
    alpha = colours[..., 3:] * strength
    return picture * (1 - alpha) + colours[..., :3] * alpha


def on_white(colours: Tensor) -> Tensor:
    """A map [..., H, W, 4] on white paper: [..., H, W, 3]."""
    return overlay(colours.new_ones(3), colours)


def to_picture(pixel_values: Tensor, mean: float | Sequence[float] | None = None, std: float | Sequence[float] | None = None) -> Tensor:
    """What a model got, as something to look at: pixel_values [..., C, H, W] -> [..., H, W, 3] in [0, 1], grey repeated.

    Args:
        mean, std: those of the image processor, a number or one a channel; one alone leaves the other at 0 or 1. Without both, every picture is stretched
            so that its smallest number is black and its largest white.

    Raises:
        ValueError: neither one nor three channels, or a mean or std of another length.
    """
    if pixel_values.dim() < 3 or pixel_values.shape[-3] not in (1, 3):
        raise ValueError(f"pixel_values: expected [..., 3, H, W] or [..., 1, H, W], got {list(pixel_values.shape)}")
    pixels = _wide(pixel_values)
    if mean is None and std is None:
        low, high = pixels.amin((-3, -2, -1), keepdim=True), pixels.amax((-3, -2, -1), keepdim=True)
        pixels = _over(pixels - low, high - low)
    else:
        pixels = pixels * _a_channel("std", 1.0 if std is None else std, pixels) + _a_channel("mean", 0.0 if mean is None else mean, pixels)
    return pixels.clamp(0, 1).expand(*pixels.shape[:-3], 3, *pixels.shape[-2:]).movedim(-3, -1)


def picture_grid(pictures: Tensor | Sequence[Tensor], columns: int, gap: int = 2) -> Tensor:
    """Pictures [h, w, C] of any sizes in reading order as one [H, W, C], padded with white below and to the right, `gap` white pixels between them.

    Raises a ValueError for no picture, unequal channels, or `columns` below 1.
    """
    pictures = list(pictures)
    if not pictures or columns < 1 or len({picture.shape[-1] for picture in pictures}) != 1 or any(picture.dim() != 3 for picture in pictures):
        raise ValueError(f"picture_grid: expected columns >= 1 and pictures [h, w, C] of one C, got {columns} and {[list(p.shape) for p in pictures]}")
    columns = min(columns, len(pictures))
    height, width = (max(picture.shape[side] for picture in pictures) + gap for side in (0, 1))
    tiles = [F.pad(picture, (0, 0, 0, width - picture.shape[1], 0, height - picture.shape[0]), value=1.0) for picture in pictures]
    tiles += [torch.ones_like(tiles[0])] * (-len(tiles) % columns)
    rows = [torch.cat(tiles[start : start + columns], 1) for start in range(0, len(tiles), columns)]
    return torch.cat(rows)[: -gap or None, : -gap or None]


def _wide(values: Tensor) -> Tensor:
    """At least float32, without history."""
    return values.detach().to(torch.promote_types(values.dtype, torch.float32))


def _over(values: Tensor, scale: Tensor) -> Tensor:
    """values / scale, and 0 where values are 0, whatever the scale."""
    return torch.where(values == 0, 0, values / scale)


def _rgb(colour: str, like: Tensor) -> Tensor:
    return like.new_tensor([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])


def _a_channel(name: str, value: float | Sequence[float], pixels: Tensor) -> Tensor:
    value = torch.as_tensor(value, dtype=pixels.dtype, device=pixels.device).flatten()
    if len(value) not in (1, pixels.shape[-3]):
        raise ValueError(f"{name}: expected a number or {pixels.shape[-3]} (one a channel), got {len(value)}")
    return value[:, None, None]
