"""What the figures of texts and of pictures share: colours, matplotlib without a display, texts that mean themselves, PNG files that are whole."""

import io
import os
import warnings

from bcos_hf.models.bcos_writing import write_bytes


FOR, AGAINST = "#d97706", "#3b82f6"  # orange and blue: told apart by all common kinds of colour vision


def new_figure(width: float, height: float):
    """An empty matplotlib Figure of so many inches, in no window and in nobody's list of figures. Raises an ImportError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot: expected matplotlib, which is not installed: pip install bcos_hf[viz]") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def literal(text: str, most: int | None = None) -> str:
    """`text` as matplotlib shows it, without mathematics between dollar signs; with `most`, cut to so many characters."""
    short = text if most is None or len(text) <= most else text[: most - 1].rstrip() + "…"
    return short.replace("$", r"\$")


def write_figure(figure, path: str | os.PathLike | None) -> None:
    """Write `figure` to `path` as PNG, all or nothing; None does nothing. Raises an OSError if the file cannot be written."""
    if path is None:
        return
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a box in the picture, not an error
        figure.savefig(buffer, format="png", dpi=150)
    write_bytes(path, buffer.getvalue())
