"""Contrastive evidence rank: of 'why this word rather than that one', how high does the explanation rank the token that people know decides it?

The reciprocal of the best rank of an evidence token; its mean is the MRR. Range (0, 1], higher is better. Chance: `expected_reciprocal_ranks`.
Sources: Wang et al., TMLR 2025 (arXiv 2502.12992); pairs from BLiMP, Warstadt et al., TACL 2020; Yin & Neubig, EMNLP 2022.
"""

from math import comb

import datasets
import evaluate
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bcos_hf.metrics.bootstrap import measured
from bcos_hf.metrics.finite import check_finite


def expected_reciprocal_ranks(counted: Tensor, evidence: Tensor) -> Tensor:
    """What a random order gives, [N]: sum over ranks k of P(best rank = k) / k, for evidence and counted tokens bool [N, L]."""
    made = []
    for total, n in zip(counted.sum(1).tolist(), (evidence & counted).sum(1).tolist(), strict=True):
        made.append(sum(comb(total - k, n - 1) / k for k in range(1, total - n + 2)) / comb(total, n))
    return torch.tensor(made, dtype=torch.float64)


def reciprocal_ranks(scores: Tensor, evidence: Tensor, counted: Tensor) -> Tensor:
    """1 / rank of the best-ranked evidence token, [N]; equal scores rank in the order of tokens, and scores that are all equal count as chance.

    Args:
        scores: [N, L], contributions to a word less those to its foil. evidence, counted: bool [N, L], the tokens that decide; neither padding nor special.

    Raises:
        ValueError: other shapes, scores that are not finite, or a text without an evidence token that counts.
    """
    if scores.ndim != 2 or not scores.shape == evidence.shape == counted.shape:
        raise ValueError(f"reciprocal_ranks: expected three tensors [N, L], got {[list(x.shape) for x in (scores, evidence, counted)]}.")
    counted, evidence = counted.bool(), evidence.bool() & counted.bool()
    if not evidence.any(1).all():
        raise ValueError(f"reciprocal_ranks: expected an evidence token in every text, found none in {(~evidence.any(1)).sum()}; leave those out.")
    check_finite(scores=scores[counted])
    order = scores.masked_fill(~counted, -torch.inf).argsort(dim=1, descending=True, stable=True)
    best = evidence.gather(1, order).int().argmax(1) + 1
    low, high = scores.masked_fill(~counted, torch.inf).amin(1), scores.masked_fill(~counted, -torch.inf).amax(1)
    return torch.where(low == high, expected_reciprocal_ranks(counted, evidence).to(scores.device), 1 / best.double())


class EvidenceRank(evaluate.Metric):
    """`compute(predictions=contributions [N, L], references=evidence [N, L])`: the mean reciprocal rank with its 95 % interval."""

    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Wang et al., B-cos LM: Efficiently Transforming Pre-trained Language Models for Improved Explainability, TMLR 2025.",
            inputs_description="predictions: contributions of the counted tokens, a word against its foil; references: 1 for evidence tokens, 0 for others.",
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Sequence(datasets.Value("int64"))}),
        )

    def _compute(self, predictions, references, seed=0):
        scores, evidence = (pad_sequence([torch.tensor(row) for row in rows], batch_first=True) for rows in (predictions, references))
        counted = pad_sequence([torch.ones(len(row)) for row in predictions], batch_first=True).bool()
        return measured("evidence_rank", reciprocal_ranks(scores, evidence, counted), expected_reciprocal_ranks(counted, evidence.bool()), seed)
