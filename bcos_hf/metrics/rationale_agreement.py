"""Agreement with human rationales: are the tokens that people marked the ones that contribute? Token F1, IoU F1 of spans, area under precision and recall.

Range [0, 1], higher is better. Chance depends on how much is marked; baseline: random_scores.py. It measures plausibility, not faithfulness.
Source: DeYoung et al., ERASER, ACL 2020, section 5.
"""

import datasets
import evaluate
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bcos_hf.metrics.bootstrap import measured
from bcos_hf.metrics.finite import check_finite
from bcos_hf.metrics.perturbation import rationale
from bcos_hf.metrics.random_scores import random_scores


def marked_tokens(spans: list[list[tuple[int, int]]], offsets: Tensor) -> Tensor:
    """Tokens bool [N, L] that overlap a marked span (start, end) of characters, half-open, by a fast tokenizer's offset_mapping [N, L, 2]."""
    starts, ends = offsets[..., 0], offsets[..., 1]
    rows = [torch.zeros_like(starts[0], dtype=torch.bool) for _ in spans]
    for row, marked in enumerate(spans):
        for start, end in marked:
            rows[row] |= (starts[row] < end) & (ends[row] > start)
    return torch.stack(rows)


def _spans(tokens: list[bool]) -> list[tuple[int, int]]:
    """Runs of true, half-open."""
    edges = [index for index, (one, other) in enumerate(zip([False, *tokens], [*tokens, False], strict=True)) if one != other]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _iou(one: tuple[int, int], other: tuple[int, int]) -> float:
    common = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    return common / (one[1] - one[0] + other[1] - other[0] - common)


def span_f1(chosen: list[bool], marked: list[bool], threshold: float = 0.5) -> float:
    """F1 of the spans of `chosen` that have an intersection over union of `threshold` or more with one of `marked`."""
    ours, theirs = _spans(chosen), _spans(marked)
    met = sum(any(_iou(one, other) >= threshold for other in theirs) for one in ours)
    return _f1(met / len(ours), met / len(theirs)) if ours and theirs else 0.0


def precision_recall_area(scores: Tensor, marked: Tensor) -> float:
    """Area by trapezoids under precision over recall as ever more tokens [L] are taken, those of equal score together; precision is 1 before the first."""
    scores, order = scores.sort(descending=True)
    last = torch.cat([scores.diff() != 0, torch.ones(1, dtype=torch.bool, device=scores.device)])
    right = marked[order].double().cumsum(0)
    precision, recall = (right / torch.arange(1, len(right) + 1, device=right.device))[last], (right / right[-1])[last]
    start = torch.tensor([1.0, 0.0], dtype=torch.float64, device=right.device)
    return torch.trapezoid(torch.cat([start[:1], precision]), torch.cat([start[1:], recall])).item()


def rationale_agreement(scores: Tensor, marked: Tensor, counted: Tensor, fraction: float | None = None) -> dict[str, Tensor]:
    """{"token_f1", "iou_f1", "auprc"}, each [N].

    Args:
        scores: [N, L], contributions. marked: bool [N, L], the human rationale. counted: bool [N, L], neither padding nor special tokens.
        fraction: share of the tokens, the highest, that are the explanation's rationale; None: the mean share that people marked, as ERASER does.

    Raises:
        ValueError: other shapes, scores that are not finite, or a text of which nothing that counts is marked.
    """
    if scores.ndim != 2 or not scores.shape == marked.shape == counted.shape:
        raise ValueError(f"rationale_agreement: expected three tensors [N, L], got {[list(x.shape) for x in (scores, marked, counted)]}.")
    counted = counted.bool()
    check_finite(scores=scores[counted])
    marked = marked.bool() & counted
    if not marked.any(1).all():
        raise ValueError(f"rationale_agreement: expected a marked token in every text, found none in {(~marked.any(1)).sum()}; leave those out.")
    fraction = (marked.sum(1) / counted.sum(1)).mean().item() if fraction is None else fraction
    chosen = rationale(scores, counted, fraction)
    right = (chosen & marked).sum(1).double()
    rows = list(zip(chosen, marked, counted, strict=True))
    return {
        "token_f1": 2 * right / (chosen.sum(1) + marked.sum(1)),
        "iou_f1": torch.tensor([span_f1(ours[counts].tolist(), theirs[counts].tolist()) for ours, theirs, counts in rows], dtype=torch.float64),
        "auprc": torch.tensor([precision_recall_area(row[counts], theirs[counts]) for row, (_, theirs, counts) in zip(scores, rows, strict=True)]).double(),
    }


class RationaleAgreement(evaluate.Metric):
    """`compute(predictions=contributions [N, L], references=marked [N, L])`: the three means with their 95 % intervals."""

    def _info(self):
        row = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=__doc__,
            citation="DeYoung et al., ERASER: A Benchmark to Evaluate Rationalized NLP Models, ACL 2020.",
            inputs_description="predictions: contributions of the counted tokens of a text; references: 1 for those that are marked, 0 for others.",
            features=datasets.Features({"predictions": row, "references": datasets.Sequence(datasets.Value("int64"))}),
        )

    def _compute(self, predictions, references, fraction=None, seed=0):
        scores, marked = (pad_sequence([torch.tensor(row) for row in rows], batch_first=True) for rows in (predictions, references))
        counted = pad_sequence([torch.ones(len(row)) for row in predictions], batch_first=True).bool()
        ours, random = (rationale_agreement(made, marked, counted, fraction) for made in (scores, random_scores(scores, seed)))
        return {key: value for name in ours for key, value in measured(name, ours[name], random[name], seed).items()}
