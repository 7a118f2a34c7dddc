"""A result as a figure: how accurate each model is along its training, and each measure of each explanation, with a point for every seed."""

import os

import numpy as np

from bcos_hf.visualization.figures import FOR, literal, new_figure, write_figure


WIDTH, ROW, HEAD = 3.6, 0.24, 0.9  # inches: a panel, an explanation, title and numbers
ACROSS = 4  # panels beside each other
LINES, COLOURS = ("-", "--", ":"), 10  # a model's line, and after how many models matplotlib's colours come again
GREY, INK = "#d1d5db", "#374151"


def plot_experiment(result: dict, path: str | os.PathLike | None = None):
    """A panel for each measure, explanations of B-cos models in colour, and one of the accuracies where they were taken along the training.

    Args:
        result: as `run_experiment` gives it. path: also write a PNG there, all or nothing.

    Returns:
        The matplotlib Figure.

    Raises:
        ValueError: a result with neither measures nor histories. ImportError: matplotlib is not installed. OSError: the file cannot be written.
    """
    runs = list(result["runs"].values())
    rows = [(model, explainer) for model, named in runs[0]["explanations"].items() for explainer in named]
    measures = list(dict.fromkeys(name for model, explainer in rows for name in runs[0]["explanations"][model][explainer]))
    curves = {model: points for model, points in runs[0]["history"].items() if len(points) > 1}
    panels = len(measures) + bool(curves)
    if not panels:
        raise ValueError(f"{result['name']}: expected measures or accuracies along the training, got neither; there is nothing to draw.")
    across, down = min(panels, ACROSS), -(-panels // ACROSS)
    figure = new_figure(WIDTH * across + 1.2, down * (HEAD + ROW * max(len(rows), 8)))
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis in axes[panels:]:
        axis.remove()
    for place, (axis, measure) in enumerate(zip(axes, measures, strict=False)):
        _bars(axis, measure, rows, runs)
        if place % across:
            axis.set_yticklabels([])
    if curves:
        _curves(axes[panels - 1], list(curves), runs)
    write_figure(figure, path)
    return figure


def _bars(axis, measure: str, rows: list[tuple], runs: list[dict]) -> None:
    """The mean of the seeds as a bar, each seed as a point; none where it was not measured."""
    for place, (model, explainer) in enumerate(rows):
        values = [run["explanations"][model][explainer][measure]["mean"] for run in runs if measure in run["explanations"][model][explainer]]
        if values:
            axis.barh(place, np.mean(values), color=FOR if explainer == "bcos" else GREY)
            axis.plot(values, [place] * len(values), "o", color=INK, markersize=3)
    axis.set_yticks(range(len(rows)), [literal(model if explainer == "bcos" else f"{model}: {explainer}") for model, explainer in rows], fontsize=7)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.axvline(0, color=INK, linewidth=0.6)
    axis.set_title(literal(measure.replace("_", " ")), fontsize=9)
    axis.tick_params(axis="x", labelsize=7)


def _curves(axis, models: list[str], runs: list[dict]) -> None:
    """Mean validation accuracy over steps; the band reaches from the lowest to the highest seed."""
    for place, model in enumerate(models):
        steps = [step for step, _ in runs[0]["history"][model]]
        values = np.array([[accuracy for _, accuracy in run["history"][model]] for run in runs])
        (line,) = axis.plot(steps, values.mean(0), linestyle=LINES[place // COLOURS % len(LINES)], marker="o", markersize=3, label=literal(model))
        axis.fill_between(steps, values.min(0), values.max(0), color=line.get_color(), alpha=0.15)
    axis.set_title("validation accuracy over steps", fontsize=9)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7)
