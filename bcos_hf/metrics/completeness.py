"""Completeness: do contributions and constant add up to the logit? |logit - sum - constant| / sum |contributions|; 0 is exact, lower is better."""

import datasets
import evaluate
import numpy as np
import torch

from bcos_hf.metrics.bootstrap import measured
from bcos_hf.metrics.finite import check_finite
from bcos_hf.metrics.random_scores import random_scores


def relative_residual(contributions, constants, logits):
    """Relative residuals [N] of contributions [N, ...], constants [N] and explained logits [N]; a ValueError for numbers that are not finite."""
    check_finite(contributions=np.asarray(contributions, dtype=float), constants=np.asarray(constants, dtype=float), logits=np.asarray(logits, dtype=float))
    contributions = np.asarray(contributions, dtype=float).reshape(len(logits), -1)
    residual = np.asarray(logits, dtype=float) - contributions.sum(1) - np.asarray(constants, dtype=float)
    return np.abs(residual) / np.maximum(np.abs(contributions).sum(1), np.finfo(float).tiny)


class Completeness(evaluate.Metric):
    """`compute(predictions=contributions [N, L], constants=[N], references=logits [N])`: mean with its 95 % interval, and the largest.

    The random baseline is random scores with the same absolute sum as the contributions.
    """

    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Boehle et al., B-cos Networks, CVPR 2022; the axiom: Sundararajan et al., ICML 2017.",
            inputs_description="predictions: contributions of one explanation; references: the logit explained; constants: its constant, default 0.",
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("float64")}),
        )

    def _compute(self, predictions, references, constants=None, seed=0):
        constants = np.zeros(len(references)) if constants is None else constants
        width = max(len(row) for row in predictions)
        rows = [list(row) + [0.0] * (width - len(row)) for row in predictions]
        residuals = relative_residual(rows, constants, references)
        noise = random_scores(torch.tensor(rows), seed).numpy() * (np.arange(width) < [[len(row)] for row in predictions])
        scale = np.abs(rows).sum(1, keepdims=True) / np.maximum(np.abs(noise).sum(1, keepdims=True), np.finfo(float).tiny)
        random = relative_residual(noise * scale, constants, references)
        return {**measured("mean_relative_residual", torch.tensor(residuals), torch.tensor(random), seed), "max_relative_residual": float(residuals.max())}
