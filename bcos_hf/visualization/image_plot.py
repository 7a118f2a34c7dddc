"""Explanations of pictures as figures, one row an input: input | colour explanation | signed contributions | the strongest classes."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from .figures import AGAINST, FOR, literal, new_figure, write_figure
from .image import on_white
from .image_reading import ImageReading, averaged, read_image
from .reading import Score, decimals, score, signed


PANEL, SCALE, BARS, HEAD = 2.6, 0.8, 3.2, 0.55  # inches: a picture, the colour bar, the classes, the title
GREY = "#d1d5db"


def plot_image(
    explanation,
    index=0,
    target=0,
    picture=None,
    mean=None,
    std=None,
    top=3,
    smooth: int | str | None = "fit",
    path: str | os.PathLike | None = None,
):
    """One input in a row: itself, the colour explanation on white, the contributions that add up to the logit, and the strongest classes.

    Args:
        explanation: contributions [N, K, H, W]; without `weights` of 2 or 6 channels there is no colour explanation.
        index, target: which input and which of its targets.
        picture: shown as the input in place of the explanation's own pixel_values: a PIL image, or an array or tensor [H, W] or [H, W, 3], in [0, 1] or bytes.
        mean, std: of the image processor, see `to_picture`.
        top: how many of the strongest classes to show; the one explained and the one spoken against are always there.
        smooth: side in pixels of the square that both maps are averaged over; "fit": 15 for 224 x 224, as large a part of others.
        path: also write a PNG there, all or nothing.

    Returns:
        The matplotlib Figure.

    Raises:
        ImportError: matplotlib is not installed. IndexError: no such input or target.
        ValueError: not an explanation of pictures, or `picture` is none. OSError: the file cannot be written.
    """
    return _figure([(explanation, index, picture)], target, mean, std, top, smooth, path)


def plot_image_rows(
    explanations,
    target=0,
    pictures: Sequence | None = None,
    mean=None,
    std=None,
    top=3,
    smooth: int | str | None = "fit",
    path: str | os.PathLike | None = None,
):
    """The row of `plot_image` for every input, one below the other.

    Args:
        explanations: one Explanation of N inputs, or several of any number each.
        pictures: one for every row. The rest as in `plot_image`, whose errors these are as well.
    """
    several = [explanations] if hasattr(explanations, "contributions") else list(explanations)
    rows = [(explanation, index) for explanation in several for index in range(len(explanation.contributions))]
    if not rows or (pictures is not None and len(pictures) != len(rows)):
        given = "none" if pictures is None else len(pictures)
        raise ValueError(f"plot_image_rows: expected at least one input, and a picture for each if any; got {len(rows)} inputs and pictures: {given}")
    return _figure([(*row, None if pictures is None else pictures[i]) for i, row in enumerate(rows)], target, mean, std, top, smooth, path)


def _figure(rows: list[tuple], target: int, mean, std, top: int, smooth: int | str | None, path):
    drawn = []
    for explanation, index, picture in rows:
        reading = read_image(explanation, index, target, mean, std, smooth)
        drawn.append((reading, _panels(reading, picture), _classes(explanation, index, target, top)))
    figure = new_figure(PANEL * (1 + max(len(panels) for _, panels, _ in drawn)) + SCALE + BARS, (PANEL + HEAD) * len(rows))
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (reading, panels, classes) in zip(parts, drawn, strict=True):
        _row(part, reading, panels, classes)
    write_figure(figure, path)
    return figure


def _panels(reading: ImageReading, picture: Any) -> list[tuple[str, np.ndarray]]:
    """Names and pictures [H, W] or [H, W, 3] before the contributions, without those that are unknown."""
    shown = reading.picture if picture is None else as_array(picture)
    panels = [("input", shown), ("colour explanation", None if reading.colours is None else on_white(reading.colours))]
    return [(name, np.asarray(what)) for name, what in panels if what is not None]


def as_array(picture: Any) -> np.ndarray:
    """A PIL image, or an array or tensor [H, W] or [H, W, 3] in [0, 1] or bytes, as an array that can be shown. Raises a ValueError for anything else."""
    if hasattr(picture, "convert"):  # a PIL image of any mode
        picture = picture.convert("RGB")
    array = np.asarray(picture.detach().cpu() if hasattr(picture, "detach") else picture)
    if array.dtype.kind not in "fiub" or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] != 3):
        raise ValueError(f"picture: expected a PIL image, or numbers [H, W] or [H, W, 3], got {type(picture).__name__} {list(array.shape)}")
    return np.clip(array / 255 if array.dtype == np.uint8 else array, 0, 1)


def _classes(explanation: Any, index: int, target: int, top: int) -> list[tuple[Score, str]]:
    """The `top` strongest classes, strongest first, with the one explained and the one spoken against, each with its colour."""
    if top < 0:
        raise ValueError(f"top: expected a whole number >= 0, got {top}")
    logits = explanation.logits[index]
    colours = dict.fromkeys(logits.topk(min(top, len(logits))).indices.tolist(), GREY)
    colours |= {} if explanation.contrast is None else {int(explanation.contrast[index, target]): AGAINST}
    colours[int(explanation.targets[index, target])] = FOR
    return [(score(explanation, index, number), colours[number]) for number in sorted(colours, key=lambda number: -logits[number].item())]


def _row(part, reading: ImageReading, panels: list[tuple[str, np.ndarray]], classes: list[tuple[Score, str]]) -> None:
    part.suptitle(literal(reading.headline()), fontsize=10, x=0.01, ha="left")
    *pictures, signed_ax, classes_ax = part.subplots(1, len(panels) + 2, width_ratios=[PANEL] * len(panels) + [PANEL + SCALE, BARS])
    for ax, (name, what) in zip(pictures, panels, strict=True):
        ax.imshow(what, vmin=0, vmax=1, cmap="gray", interpolation="nearest")
        ax.set_xlabel(name)
    _signed(signed_ax, reading)
    signed_ax.set_xlabel(averaged("contributions", reading.smooth))
    for ax in (*pictures, signed_ax):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_color(GREY)
    _bars(classes_ax, classes)


def _signed(ax, reading: ImageReading) -> None:
    """The colours of `signed_map` on white, with their scale."""
    from matplotlib.colors import LinearSegmentedColormap

    limit = reading.peak if 0 < reading.peak < math.inf else 1.0
    colours = LinearSegmentedColormap.from_list("contributions", [AGAINST, "white", FOR])
    drawn = ax.imshow(reading.values.numpy(), cmap=colours, vmin=-limit, vmax=limit, interpolation="nearest")
    ax.set_anchor("W")
    scale = ax.figure.colorbar(drawn, cax=ax.inset_axes((1.04, 0.08, 0.05, 0.84)), ticks=[-limit, 0, limit])
    form = f".{max(decimals(limit) - 2, 2)}f"
    scale.ax.set_yticklabels([signed(at, form) for at in (-limit, 0.0, limit)], fontsize=8)
    scale.outline.set_edgecolor(GREY)


def _bars(ax, classes: list[tuple[Score, str]]) -> None:
    """Probabilities as bars, each below its name and above its numbers; long names are cut."""
    places = range(len(classes))
    ax.barh(places, [one.probability for one, _ in classes], height=0.3, color=[colour for _, colour in classes])
    for place, (one, _) in zip(places, classes, strict=True):
        ax.text(0, place - 0.22, literal(one.name, 26), fontsize=9, va="bottom")
        chance = f"{one.chance} · " if one.quantity == "logit" else ""
        ax.text(1, place - 0.22, f"{chance}{one.quantity} {signed(one.logit, '.2f')}", fontsize=8, va="bottom", ha="right", color="0.35")
    ax.set(xlim=(0, 1), ylim=(max(len(classes), 3) - 0.6, -0.7), xticks=[0, 0.5, 1], yticks=[])
    quantity = classes[0][0].quantity
    ax.set_xlabel("probability (sigmoid)" if quantity == "logit" else quantity)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right", "left"]].set_visible(False)
