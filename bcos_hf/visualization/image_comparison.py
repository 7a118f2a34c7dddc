"""Several ways to look at the same images: a column an image, a row a way."""

import os
from collections.abc import Sequence

import numpy as np

from .figures import literal, new_figure, write_figure
from .image_plot import GREY, as_array


CELL, TITLE, NAME = 1.6, 0.42, 0.3  # inches: an image, the title above a column, the name beside a row
LONGEST = 24  # characters of a title's line


def plot_comparison(rows: dict[str, Sequence], titles: Sequence[str] = (), path: str | os.PathLike | None = None):
    """Images under each other, the same in each column.

    Args:
        rows: name -> N images, PIL or arrays or tensors [H, W, 3] in [0, 1] or bytes; the photos themselves, then maps on white.
        titles: of the columns; lines end at a line feed, long ones are cut.
        path: also write a PNG there, all or nothing.

    Returns:
        The matplotlib Figure.

    Raises:
        ValueError: no image, rows of unequal length, or another number of titles. ImportError: matplotlib is not installed.
    """
    count = len(next(iter(rows.values()), ()))
    if not count or any(len(images) != count for images in rows.values()) or (titles and len(titles) != count):
        found = {name: len(images) for name, images in rows.items()}
        raise ValueError(f"plot_comparison: expected rows of one length, a title a column, got {found}, {len(titles)} titles.")
    figure = new_figure(CELL * count + NAME, CELL * len(rows) + TITLE)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    grid = figure.subplots(len(rows), count, squeeze=False)
    for axes, (name, images) in zip(grid, rows.items(), strict=True):
        axes[0].set_ylabel(name, fontsize=10)
        for ax, image in zip(axes, images, strict=True):
            ax.imshow(np.asarray(as_array(image)), vmin=0, vmax=1, cmap="gray", interpolation="antialiased")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_color(GREY)
    for ax, title in zip(grid[0], titles, strict=False):
        ax.set_title("\n".join(literal(line, LONGEST) for line in title.split("\n")), fontsize=9)
    write_figure(figure, path)
    return figure
