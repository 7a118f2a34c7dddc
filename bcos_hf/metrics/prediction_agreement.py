"""Agreement: how often do two classifiers, of which one was made of the other, predict the same class?

Range [0, 1], higher is better. Chance: that of two independent predictions; no label is needed. Where classes are many and
images are of few of them, agreement says what was kept of the predictions, and not how good they are.
"""

import datasets
import evaluate
import torch
from torch import Tensor

from bcos_hf.metrics.bootstrap import bootstrap_interval, measured
from bcos_hf.metrics.finite import check_finite


def agreements(standard: Tensor, logits: Tensor) -> Tensor:
    """Where the largest logit is the same, [N] of 0 and 1; both logits are [N, C].

    Raises:
        ValueError: shapes that differ, or are no [N, C]; logits that are not finite.
    """
    if standard.ndim != 2 or standard.shape != logits.shape:
        raise ValueError(f"agreements: expected two logits [N, C], got {list(standard.shape)} and {list(logits.shape)}.")
    check_finite(standard=standard, logits=logits)
    return (standard.argmax(1) == logits.argmax(1)).double()


def compare_predictions(standard: Tensor, logits: Tensor, seed: int = 0) -> dict:
    """Agreement with its 95 % interval, and what the softmax of `logits` makes of the standard model's predictions.

    Returns:
        "top_1": {"mean", "low", "high"}, and means: "top_5", the standard class is among the five largest logits;
        "probability", of the standard class; "standard_probability", the standard model's own; "kl", in nats.
    """
    same = agreements(standard, logits)
    classes, theirs, ours = standard.argmax(1, keepdim=True), standard.log_softmax(1), logits.log_softmax(1)
    best = logits.topk(min(5, logits.shape[1])).indices
    return {
        "top_1": bootstrap_interval(same, seed=seed),
        "top_5": (best == classes).any(1).double().mean().item(),
        "probability": ours.gather(1, classes).exp().mean().item(),
        "standard_probability": theirs.gather(1, classes).exp().mean().item(),
        "kl": (theirs.exp() * (theirs - ours)).sum(1).mean().item(),
    }


class Agreement(evaluate.Metric):
    """`compute(predictions=logits [N, C], references=logits of the standard model)`: mean agreement and its 95 % interval."""

    def _info(self):
        row = datasets.Sequence(datasets.Value("float32"))
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="predictions, references: logits [C] of each input, of the two models.",
            features=datasets.Features({"predictions": row, "references": row}),
        )

    def _compute(self, predictions, references, seed=0):
        return measured("agreement", agreements(torch.tensor(references), torch.tensor(predictions)), seed=seed)
