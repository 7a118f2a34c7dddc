"""What a name in an experiment's list of explainers stands for: the model's own explanation, or a post-hoc one."""

from collections.abc import Callable
from functools import partial

import torch

from bcos_hf.baselines import BASELINES


def explainer_name(given: str | dict) -> str:
    """Of an entry of the list, a name or {name: options}."""
    return given if isinstance(given, str) else next(iter(given))


def explainers_of(names: list[str | dict], seed: int, model) -> dict[str, Callable]:
    """Name -> callable like `explain`, of "bcos", names of `BASELINES`, or {name: options}.

    Raises:
        ValueError: another name.
    """
    made = {}
    for given in names:
        name, options = explainer_name(given), {} if isinstance(given, str) else next(iter(given.values()))
        if name != "bcos" and name not in BASELINES:
            raise ValueError(f"explainers: expected 'bcos' or one of {sorted(BASELINES)}, got {name!r}.")
        if name == "random":  # a map of its own for every input
            options = {**options, "seed": torch.Generator().manual_seed(seed)}
        made[name] = partial(model.explain, return_weights=False, **options) if name == "bcos" else partial(BASELINES[name], model, **options)
    return made
