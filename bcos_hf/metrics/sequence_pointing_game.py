"""Sequence pointing game (SeqPG): two texts of different classes in one; how much of the positive contribution to a class lies in its own text?

Range [0, 1], higher is better. Chance: 1/2; baseline: random_scores.py.
Source: Wang et al., B-cos LM, TMLR 2025 (arXiv 2502.12992) section 5; pairs of texts: bcos_hf/metrics/sequence_pairs.py.
"""

import datasets
import evaluate
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bcos_hf.metrics.bootstrap import measured
from bcos_hf.metrics.finite import check_finite
from bcos_hf.metrics.random_scores import random_scores


def sequence_pointing_shares(contributions: Tensor, counted: Tensor, boundaries: Tensor | None = None) -> Tensor:
    """Share [G, 2] of the positive contribution that is inside the right text; 0 where there is none at all.

    Args:
        contributions: [G, 2, L], map t explains the class of text t. counted: bool [G, L], neither padding nor special tokens.
        boundaries: [G], how many counted tokens the first text has. None, as published: half of them, rounded down.

    Raises:
        ValueError: other shapes, contributions that are not finite, or a pair with a text that has no token.
    """
    if contributions.ndim != 3 or contributions.shape[1] != 2 or counted.shape != contributions[:, 0].shape:
        shapes = f"{list(contributions.shape)} and {list(counted.shape)}"
        raise ValueError(f"sequence_pointing_shares: expected contributions [G, 2, L] and counted [G, L], got {shapes}.")
    counted = counted.bool().to(contributions.device)
    total = counted.sum(1)
    boundaries = total // 2 if boundaries is None else torch.as_tensor(boundaries, device=total.device)
    if boundaries.shape != total.shape or (boundaries < 1).any() or (boundaries >= total).any():
        raise ValueError(
            f"sequence_pointing_shares: expected a counted token in each text of {len(total)} pairs, got {boundaries.tolist()} of {total.tolist()}."
        )
    check_finite(contributions=contributions.mT[counted])
    positive = contributions.to(torch.promote_types(contributions.dtype, torch.float32)).clamp_min(0).masked_fill(~counted[:, None], 0)
    first = (counted.cumsum(1) <= boundaries[:, None])[:, None]
    parts = torch.stack([positive.masked_fill(~inside, 0).sum(2) for inside in (first, ~first)], 2)  # [G, map, text]
    own, whole = parts.diagonal(dim1=1, dim2=2), parts.sum(2)
    return torch.where(whole == 0, 0.0, own / whole)


class SequencePointingGame(evaluate.Metric):
    """`compute(predictions=contributions [G, 2, L], references=boundaries [G])`: mean share with its 95 % interval, pairs resampled."""

    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Wang et al., B-cos LM: Efficiently Transforming Pre-trained Language Models for Improved Explainability, TMLR 2025.",
            inputs_description="predictions: for each pair two rows, for the class of each text, of counted tokens only; references: tokens of the first text.",
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Sequence(datasets.Value("float64"))), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions, references, seed=0):
        rows = [torch.tensor(rows, dtype=torch.float64).T for rows in predictions]
        counted = pad_sequence([torch.ones(len(row)) for row in rows], batch_first=True).bool()
        maps, boundaries = pad_sequence(rows, batch_first=True).mT, torch.tensor(references)
        shares, random = (sequence_pointing_shares(made, counted, boundaries).mean(1) for made in (maps, random_scores(maps, seed)))
        return measured("sequence_pointing_game", shares, random, seed)
