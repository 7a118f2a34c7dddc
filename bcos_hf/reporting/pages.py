"""Results as Markdown: a table for each experiment, and one of the claims. Everything is computed from the result files."""

import numpy as np

from .claims import judged


BRACKETS = "In brackets: of an accuracy the lowest and the highest seed, of a measure the lowest and the highest limit of the seeds' 95 % bootstrap intervals."


def _cell(intervals: list[dict[str, float]], seeds: int) -> str:
    """Mean over seeds, the lowest "low" and the highest "high", and of how many seeds where that is not all."""
    if not intervals:
        return ""
    means, lows, highs = ([interval[key] for interval in intervals] for key in ("mean", "low", "high"))
    missing = f", {len(intervals)} of {seeds} seeds" if len(intervals) < seeds else ""
    return f"{np.mean(means):.3f} ({min(lows):.3f} to {max(highs):.3f}{missing})"


def experiment_page(result: dict) -> str:
    """Title, accuracies and measures, with `BRACKETS`."""
    runs, lines = list(result["runs"].values()), [f"## {result['title']}", ""]
    where = result["machine"]
    lines += [f"Seeds {', '.join(result['runs'])}; {where['gpu'] or where['cpu']}, torch {where['torch']}. {BRACKETS} {result['remark']}".rstrip(), ""]
    lines += ["| model | test accuracy |", "|---|---|"]
    for name in runs[0]["accuracy"]:
        values = [run["accuracy"][name] for run in runs]
        lines.append(f"| {name} | {_cell([{'mean': value, 'low': value, 'high': value} for value in values], len(runs))} |")
    rows = [(model, explainer, found) for model, named in runs[0]["explanations"].items() for explainer, found in named.items()]
    names = list(dict.fromkeys(name for *_, found in rows for name in found))
    if names:
        counts = {name: next(found[name]["n"] for *_, found in rows if name in found) for name in names}
        lines += ["", f"| model | explanation | {' | '.join(f'{name} (n = {counts[name]})' for name in names)} |", "|---|---|" + "---|" * len(names)]
    for model, explainer, _ in rows:
        found = [run["explanations"][model][explainer] for run in runs]
        cells = [_cell([of_seed[name] for of_seed in found if name in of_seed], len(runs)) for name in names]
        lines.append(f"| {model} | {explainer} | {' | '.join(cells)} |")
    curves = {model: points for model, points in runs[0]["history"].items() if len(points) > 1}
    if curves:
        steps = [step for step, _ in next(iter(curves.values()))]
        lines += ["", f"| validation accuracy after | {' | '.join(f'{step} steps' for step in steps)} |", "|---|" + "---|" * len(steps)]
    for model in curves:
        series = zip(*([accuracy for _, accuracy in run["history"][model]] for run in runs), strict=True)
        lines.append(f"| {model} | {' | '.join(f'{np.mean(values):.3f}' for values in series)} |")
    return "\n".join(lines) + "\n"


def results_page(results: list[dict], untested: list[dict]) -> str:
    """RESULTS.md: the papers' claims with verdicts, what was not tested and why, then each experiment."""
    lines = ["# The papers' claims, on what can be run here", ""]
    lines += ["Made by `python recipes/report.py --page` from results/*.json. A claim holds where it does for every seed.", ""]
    lines += ["| paper | claim | measured: mean (95 % interval over seeds); each seed | against | verdict | experiment |", "|---|---|---|---|---|---|"]
    for result in results:
        for claim in judged(result):
            values = ", ".join(f"{value:.3f}" for value in claim["values"])
            spread = "({:.3f} to {:.3f})".format(*claim["interval"]) if claim["interval"] else "(no interval)"
            source = f"[{result['name']}](results/{result['name']}.json)"
            measured, rivals = f"{claim['value']:.3f} {spread}; {values}" if values else "", ", ".join(claim["rivals"])
            lines.append(f"| {claim['paper']} | {claim['claim']} | {measured} | {rivals} | {claim['verdict']} | {source} |")
    lines += [f"| {entry['paper']} | {entry['claim']} | | | not tested: {entry['why']} | |" for entry in untested]
    pages = [f"{experiment_page(result)}\n![{result['title']}](results/{result['name']}.png)\n" for result in results]
    return "\n".join(lines) + "\n\n" + "\n".join(pages)
