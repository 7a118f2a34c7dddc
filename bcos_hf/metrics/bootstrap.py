"""How sure is a mean? The percentile bootstrap: means of resamples with replacement, and the quantiles between which most of them lie.

Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13. Resample what is independent: grids or pictures, not maps of one grid.
"""

import numpy as np
import torch
from torch import Tensor

from .finite import check_finite


CHUNK = 4_000_000  # numbers drawn at a time, which bounds the memory


def bootstrap_interval(values: Tensor, confidence: float = 0.95, n_resamples: int = 10_000, seed: int = 0) -> dict[str, float]:
    """Mean of `values` [N] and its percentile interval: {"mean", "low", "high"}. The same seed gives the same interval.

    Args:
        values: [N], a tensor, an array or a list. confidence: share of the resampled means inside the interval.

    Raises:
        ValueError: no value, more than one axis, a value that is not finite, or a confidence or number of resamples out of range.
    """
    values = torch.as_tensor(values).detach().cpu().double().numpy()
    if values.ndim != 1 or not len(values):
        raise ValueError(f"bootstrap_interval: expected values of shape [N], N at least 1, got {list(values.shape)}.")
    if not np.isfinite(values).all():
        raise ValueError(f"bootstrap_interval: expected finite values, {(~np.isfinite(values)).sum()} of {len(values)} are not; look at what made them.")
    if not 0 < confidence < 1 or n_resamples < 1:
        raise ValueError(f"bootstrap_interval: expected 0 < confidence < 1 and n_resamples >= 1, got {confidence} and {n_resamples}.")
    generator, rows = np.random.default_rng(seed), max(1, CHUNK // len(values))
    sizes = [min(rows, n_resamples - start) for start in range(0, n_resamples, rows)]
    means = np.concatenate([values[generator.integers(len(values), size=(size, len(values)))].mean(1) for size in sizes])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def measured(name: str, values: Tensor, random: Tensor | None = None, seed: int = 0) -> dict[str, float]:
    """What an `evaluate.Metric` reports: {name, name_low, name_high, name_random, "n", "seed"}.

    The mean and its `bootstrap_interval`, the mean for random scores (None: not known, left out), the number of values, and the seed of interval and scores.
    """
    interval = bootstrap_interval(values, seed=seed)
    if random is not None:
        check_finite(random=random)
    chance = {} if random is None else {f"{name}_random": torch.as_tensor(random).double().mean().item()}
    return {name: interval["mean"], f"{name}_low": interval["low"], f"{name}_high": interval["high"], **chance, "n": len(values), "seed": seed}
