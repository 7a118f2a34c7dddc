"""A text explanation as a bar chart: one bar a token, its contribution to the explained logit."""

import os

from .figures import AGAINST, FOR, literal, new_figure, write_figure
from .reading import read


def plot(explanation, index: int = 0, target: int = 0, ax=None, path: str | os.PathLike | None = None, top: int | None = None):
    """Horizontal bars of contributions, in reading order or the `top` strongest.

    Args:
        explanation: contributions [N, K, L]. index, target: which example and which of its targets.
        ax: matplotlib axes to draw on; None makes a figure. path: also write a PNG there, all or nothing.

    Returns:
        The matplotlib Figure.

    Raises:
        ImportError: matplotlib is not installed. IndexError: no such example or target. OSError: the file cannot be written.
    """
    reading = read(explanation, index, target)
    order = range(len(reading.tokens))
    if top is not None:
        order = sorted(order, key=lambda i: -abs(reading.values[i]))[:top]
    values = [reading.values[i] for i in order]
    ax = new_figure(7, 1.6 + 0.28 * len(values)).add_subplot() if ax is None else ax
    places = range(len(values))
    ax.barh(places, values, color=[FOR if value > 0 else AGAINST for value in values])
    ax.set_yticks(places, [literal(reading.tokens[i]) for i in order])
    ax.invert_yaxis()
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_xlabel("contribution to the logit")
    ax.set_title(literal(reading.headline(sum(reading.values))), fontsize=10, loc="left")
    write_figure(ax.figure, path)
    return ax.figure
