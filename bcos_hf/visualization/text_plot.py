"""A text explanation as a bar chart: one bar a token, its contribution to the explained logit."""

import io
import os
import warnings

from .reading import read, signed, write_atomically


FOR, AGAINST = "#d97706", "#3b82f6"  # orange and blue: told apart by all common kinds of colour vision


def plot(explanation, index: int = 0, target: int = 0, ax=None, path: str | os.PathLike | None = None, top: int | None = None):
    """Horizontal bars of contributions, in reading order or the `top` strongest.

    Args:
        explanation: contributions [N, K, L]. index, target: which example and which of its targets.
        ax: matplotlib axes to draw on; None makes a figure. path: also write a PNG there, all or nothing.

    Returns:
        The matplotlib Figure.

    Raises:
        ImportError: matplotlib is not installed. IndexError: no such example or target.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot: expected matplotlib, which is not installed: pip install bcos_hf[viz]") from error
    reading = read(explanation, index, target)
    order = range(len(reading.tokens))
    if top is not None:
        order = sorted(order, key=lambda i: -abs(reading.values[i]))[:top]
    values = [reading.values[i] for i in order]
    if ax is None:
        figure = Figure(figsize=(7, 1.6 + 0.28 * len(values)), layout="constrained")
        FigureCanvasAgg(figure)
        ax = figure.add_subplot()
    places = range(len(values))
    ax.barh(places, values, color=[FOR if value > 0 else AGAINST for value in values])
    ax.set_yticks(places, [reading.tokens[i].replace("$", r"\$") for i in order])
    ax.invert_yaxis()
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_xlabel("contribution to the logit")
    terms = " ".join(f"{words} {number}" for words, number in reading.equation(sum(reading.values)))
    against = f" rather than {reading.contrast.name}" if reading.contrast else ""
    title = f"{reading.explained.name}{against} (predicted {reading.predicted.name}, logit {signed(reading.predicted.logit, '.3f')})\n{terms}"
    ax.set_title(title.replace("$", r"\$"), fontsize=10, loc="left")
    if path is not None:
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # a box in the picture, not an error
            ax.figure.savefig(buffer, format="png", dpi=150)
        write_atomically(path, buffer.getvalue())
    return ax.figure
