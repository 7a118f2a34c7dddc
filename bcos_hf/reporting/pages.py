"""Results as Markdown: a table for each experiment, and one of the claims. Everything is computed from the result files."""

import numpy as np

from .claims import judged


def _cell(values: list[float], seeds: int) -> str:
    """Mean over seeds, the lowest and the highest, and of how many seeds where that is not all."""
    if not values:
        return ""
    notes = [f"{min(values):.3f} to {max(values):.3f}"] if len(values) > 1 else []
    notes += [f"{len(values)} of {seeds} seeds"] if len(values) < seeds else []
    return f"{np.mean(values):.3f}" + (f" ({', '.join(notes)})" if notes else "")


def experiment_page(result: dict) -> str:
    """Title, accuracies and measures; in brackets the lowest and the highest of the seeds."""
    runs, lines = list(result["runs"].values()), [f"## {result['title']}", ""]
    where = result["machine"]
    line = f"Seeds {', '.join(result['runs'])}; {where['gpu'] or where['cpu']}, torch {where['torch']}. In brackets the lowest and the highest seed."
    lines += [f"{line} {result['remark']}".rstrip(), ""]
    lines += ["| model | test accuracy |", "|---|---|"]
    lines += [f"| {name} | {_cell([run['accuracy'][name] for run in runs], len(runs))} |" for name in runs[0]["accuracy"]]
    rows = [(model, explainer, found) for model, named in runs[0]["explanations"].items() for explainer, found in named.items()]
    names = list(dict.fromkeys(name for *_, found in rows for name in found))
    if names:
        counts = {name: next(found[name]["n"] for *_, found in rows if name in found) for name in names}
        lines += ["", f"| model | explanation | {' | '.join(f'{name} (n = {counts[name]})' for name in names)} |", "|---|---|" + "---|" * len(names)]
    for model, explainer, _ in rows:
        series = [[run["explanations"][model][explainer][name]["mean"] for run in runs if name in run["explanations"][model][explainer]] for name in names]
        cells = [_cell(values, len(runs)) for values in series]
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
