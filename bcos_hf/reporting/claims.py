"""A claim of a paper, judged by the numbers of an experiment: it holds where every seed says so, does not where none does, else the seeds disagree."""

from collections.abc import Callable

import numpy as np
from scipy import stats


LOWER_IS_BETTER = ("sufficiency", "pixel_deletion")


def _within(run: dict, claim: dict) -> tuple[float, bool, str]:
    """Accuracy of `against` less that of `of` is at most `points`."""
    gap = run["accuracy"][claim["against"]] - run["accuracy"][claim["of"]]
    return gap, gap <= claim["points"], claim["against"]


def _beats_all(run: dict, claim: dict) -> tuple[float, bool, str]:
    """The measure of B-cos explanations less the best post-hoc one of the model `against`; random does not count as one."""
    name = claim["measure"]
    sign = -1 if name in LOWER_IS_BETTER else 1
    own = run["explanations"][claim["of"]]["bcos"][name]["mean"]
    found = run["explanations"][claim["against"]].items()
    best, rival = max((sign * values[name]["mean"], rival) for rival, values in found if rival != "random" and name in values)
    margin = sign * own - best
    return margin, margin > 0, rival


def _steps(run: dict, claim: dict) -> tuple[float, bool, str]:
    """Share of the steps after which `of` is seen to have the accuracy that `against` ends with."""
    history = run["history"]
    last, goal = history[claim["against"]][-1]
    reached = next((step for step, accuracy in history[claim["of"]] if accuracy >= goal), float("inf"))
    return reached / last, reached / last <= claim["share"], f"{claim['against']}, seen every {history[claim['of']][0][0]} of {last} steps"


# kind of a claim -> what judges a run: the number that it is about, whether it holds, and the model or the method that it is measured by
KINDS: dict[str, Callable] = {"accuracy_within": _within, "beats_all_posthoc": _beats_all, "steps_at_most": _steps}


def judged(result: dict) -> list[dict]:
    """The claims of a result of `run_experiment`, each with "values" (one a seed), "value" (their mean), "interval", "rivals" and "verdict".

    The interval is the 95 % one of Student's t over seeds; of a single seed, or where a value is infinite, there is none.

    Raises:
        ValueError: a claim of an unknown kind.
    """
    made = []
    for claim in result["experiment"]["claims"]:
        if claim["kind"] not in KINDS:
            raise ValueError(f"claims: expected a kind of {sorted(KINDS)}, got {claim['kind']!r}.")
        try:
            values, holds, rivals = zip(*(KINDS[claim["kind"]](run, claim) for run in result["runs"].values()), strict=True)
        except (KeyError, ValueError, IndexError):  # a model, a measure or an accuracy that is not there
            made.append({**claim, "values": [], "value": float("nan"), "interval": None, "rivals": [], "verdict": "not measured"})
            continue
        verdict = "holds" if all(holds) else f"holds for {sum(holds)} of {len(holds)} seeds" if any(holds) else "does not hold"
        numbers = {"values": list(values), "value": float(np.mean(values)), "interval": _interval(values)}
        made.append({**claim, **numbers, "rivals": list(dict.fromkeys(rivals)), "verdict": verdict})
    return made


def _interval(values: tuple[float, ...]) -> tuple[float, float] | None:
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return float(np.mean(values) - half), float(np.mean(values) + half)
