"""What a name in an experiment's list of explainers stands for: the model's own explanation, or a post-hoc one."""

from collections.abc import Callable
from functools import partial

import torch

from bcos_hf.baselines import BASELINES


def explainer_of(given: str | dict, model, seed: int) -> tuple[str, Callable]:
    """Name and callable like `explain` of "bcos", a name of `BASELINES`, or {name: options}.

    Raises:
        ValueError: another name.
    """
    name, options = next(iter(given.items())) if isinstance(given, dict) else (given, {})
    if name == "bcos":
        return name, partial(model.explain, return_weights=False, **options)
    if name not in BASELINES:
        raise ValueError(f"explainers: expected 'bcos' or one of {sorted(BASELINES)}, got {name!r}.")
    if name == "random":  # a map of its own for every input
        options = {**options, "seed": torch.Generator().manual_seed(seed)}
    return name, partial(BASELINES[name], model, **options)


def explainers_of(experiment, models: dict, seed: int) -> list[tuple[str, str, Callable]]:
    """(model, explainer, callable) of these models of an experiment."""
    return [(name, *explainer_of(given, model, seed)) for name, model in models.items() for given in experiment.explainers[name]]
