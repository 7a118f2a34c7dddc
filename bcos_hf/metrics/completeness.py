"""Completeness: do contributions and constant add up to the logit? |logit - sum - constant| / sum |contributions|; 0 is exact, lower is better."""

import datasets
import evaluate
import numpy as np


def relative_residual(contributions, constants, logits):
    """Relative residuals [N] of contributions [N, ...], constants [N] and explained logits [N]."""
    contributions = np.asarray(contributions, dtype=float).reshape(len(logits), -1)
    residual = np.asarray(logits, dtype=float) - contributions.sum(1) - np.asarray(constants, dtype=float)
    return np.abs(residual) / np.maximum(np.abs(contributions).sum(1), np.finfo(float).tiny)


class Completeness(evaluate.Metric):
    """`compute(predictions=contributions [N, L], constants=[N], references=logits [N])`."""

    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Boehle et al., B-cos Networks, CVPR 2022; the axiom: Sundararajan et al., ICML 2017.",
            inputs_description="predictions: contributions of one explanation; references: the logit explained; constants: its constant, default 0.",
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("float64")}),
        )

    def _compute(self, predictions, references, constants=None):
        constants = np.zeros(len(references)) if constants is None else constants
        width = max(len(row) for row in predictions)
        rows = [list(row) + [0.0] * (width - len(row)) for row in predictions]
        residuals = relative_residual(rows, constants, references)
        return {"mean_relative_residual": float(residuals.mean()), "max_relative_residual": float(residuals.max())}
