"""Rank agreement: do several explanations of one input order its parts alike? The mean of Spearman's rho over all pairs of them.

Range [-1, 1]; chance 0. Between explanations of equal models (other seeds of training or of sampling) higher is better: they are stable. Between a model and
the same with random weights (randomisation.py) lower is better: they depend on what was learnt.
Sources: Spearman, 1904; sanity checks: Adebayo et al., NeurIPS 2018 (arXiv 1810.03292).
"""

from itertools import combinations

import datasets
import evaluate
import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from bcos_hf.metrics.bootstrap import measured
from bcos_hf.metrics.finite import check_finite
from bcos_hf.metrics.random_scores import random_scores


def spearman(one, other) -> float:
    """Spearman's rho of two lists, equal values sharing their mean rank; 0 where all values of one are equal.

    Raises:
        ValueError: values that are not finite, which have no order.
    """
    check_finite(scores=np.asarray([one, other], dtype=float))
    ranks = [rankdata(values) - (len(values) + 1) / 2 for values in (one, other)]
    scale = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
    return float((ranks[0] * ranks[1]).sum() / scale) if scale else 0.0


def rank_agreement(explanations: list[Tensor], counted: Tensor | None = None) -> Tensor:
    """Mean rho [N] over all pairs of S explanations [N, ...] of the same inputs.

    Args:
        explanations: contributions, one map an input. counted: bool [N, ...], which places count; None: all.

    Raises:
        ValueError: fewer than two explanations, shapes that differ, or contributions that are not finite.
    """
    shapes = {tuple(maps.shape) for maps in explanations} | (set() if counted is None else {tuple(counted.shape)})
    if len(explanations) < 2 or len(shapes) > 1:
        raise ValueError(f"rank_agreement: expected two or more explanations (and counted) of one shape [N, ...], got {len(explanations)} of {sorted(shapes)}.")
    maps = [np.asarray(made.detach().cpu().flatten(1).double()) for made in explanations]
    places = np.ones(maps[0].shape, bool) if counted is None else np.asarray(counted.cpu().flatten(1), bool)
    pairs = list(combinations(maps, 2))
    rows = [np.mean([spearman(one[row][inside], other[row][inside]) for one, other in pairs]) for row, inside in enumerate(places)]
    return torch.tensor(np.array(rows), dtype=torch.float64)


class RankAgreement(evaluate.Metric):
    """`compute(predictions=contributions [N, S, L])`: mean rho with its 95 % interval, inputs resampled."""

    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018.",
            inputs_description="predictions: for each input S explanations of its L parts.",
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Sequence(datasets.Value("float64")))}),
        )

    def _compute(self, predictions, seed=0):
        noise = torch.Generator().manual_seed(seed)
        inputs = [torch.tensor(rows, dtype=torch.float64)[:, None] for rows in predictions]
        ours, random = (torch.cat([rank_agreement(list(maps)) for maps in made]) for made in (inputs, [random_scores(maps, noise) for maps in inputs]))
        return measured("rank_agreement", ours, random, seed)
