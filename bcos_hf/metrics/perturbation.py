"""Comprehensiveness and sufficiency: how the probability of the predicted class falls when the most important tokens are masked, or only they are kept.

Range [-1, 1] times the span of fractions (0.8 for 0.1 to 0.9). Comprehensiveness: higher is better. Sufficiency: lower is better.
Source: DeYoung et al., ERASER, ACL 2020; as measured by Wang et al., TMLR 2025 (arXiv 2502.12992) section 5.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .bootstrap import measured
from .finite import check_finite


FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def rationale(scores: Tensor, counted: Tensor, fraction: float) -> Tensor:
    """The k most important counted tokens of each text, k = max(1, floor(float32(count * fraction))), bool [N, L].

    Args:
        scores: [N, L], higher is more important. counted: bool [N, L], neither padding nor special tokens.
    """
    check_finite(scores=scores[counted])
    count = counted.sum(1)
    k = (count.float() * torch.tensor(fraction, dtype=torch.float32, device=scores.device)).floor().long().clamp_min(1).minimum(count)
    ranks = scores.masked_fill(~counted, -torch.inf).argsort(1, descending=True).argsort(1)
    return (ranks < k[:, None]) & counted


def area_under_curve(values: Sequence[float], fractions: Sequence[float] = FRACTIONS) -> float:
    """Area under `values` over `fractions`, by trapezoids; not divided by their span, as published."""
    return float(np.trapezoid(np.asarray(values, dtype=float), np.asarray(fractions, dtype=float)))


def drop_areas(drops: Tensor, fractions: Sequence[float] = FRACTIONS) -> Tensor:
    """The same for each of N texts, float64 [N], of drops [N, P], one a fraction; their mean is the area under the mean drop.

    Raises:
        ValueError: not one drop a fraction.
    """
    if drops.shape[1] != len(fractions):
        raise ValueError(f"predictions: expected {len(fractions)} probabilities a text, one a fraction, got {drops.shape[1]}.")
    return torch.trapezoid(drops.double(), torch.tensor(fractions, dtype=torch.float64))


def measured_drops(name: str, probabilities, whole, random, fractions: Sequence[float], seed: int) -> dict[str, float]:
    """What the `evaluate.Metric` of this name reports: areas under the drop from `whole` [N] to `probabilities` [N, P], and to those of random scores."""
    whole = torch.tensor(whole, dtype=torch.float64)[:, None]
    ours, chance = (None if given is None else drop_areas(whole - torch.tensor(given, dtype=torch.float64), fractions) for given in (probabilities, random))
    return measured(name, ours, chance, seed)


@torch.no_grad()
def perturbation_drops(
    model,
    input_ids: Tensor,
    attention_mask: Tensor,
    scores: Tensor,
    special_tokens_mask: Tensor,
    mask_token_id: int,
    fractions: Sequence[float] = FRACTIONS,
    targets: Tensor | None = None,
    mask_special_tokens: bool = False,
) -> dict[str, Tensor]:
    """Drops of the class probability (softmax) in one batch.

    Args:
        model: a sequence classifier, in evaluation mode. input_ids, attention_mask: [N, L].
        scores: [N, L], importance of each token for the class. special_tokens_mask: [N, L], 1 at [CLS], [SEP] and the like.
        targets: [N], the classes; None: the predicted ones.
        mask_special_tokens: sufficiency also masks special tokens and padding, as the published code does.

    Returns:
        "comprehensiveness" and "sufficiency", each [N, P] for P fractions, and "rationales", bool [N, P, L].

    Raises:
        ValueError: shapes that differ, or a text without a token to mask.
    """
    shapes = {tuple(x.shape) for x in (input_ids, attention_mask, scores, special_tokens_mask)}
    if len(shapes) > 1:
        raise ValueError(f"perturbation_drops: expected input_ids, attention_mask, scores and special_tokens_mask of one shape [N, L], got {shapes}.")
    counted = attention_mask.bool() & ~special_tokens_mask.bool()
    if not counted.any(1).all():
        raise ValueError("perturbation_drops: expected at least one token besides the special ones in every text.")
    kept_always = torch.zeros_like(counted) if mask_special_tokens else ~counted

    def probabilities(ids: Tensor) -> Tensor:
        logits = model(input_ids=ids, attention_mask=attention_mask).logits.float()
        check_finite(logits=logits)
        return logits.softmax(-1)

    original = probabilities(input_ids)
    targets = original.argmax(-1) if targets is None else targets
    original = original.gather(1, targets[:, None])[:, 0]
    made = {"comprehensiveness": [], "sufficiency": [], "rationales": []}
    for fraction in fractions:
        chosen = rationale(scores, counted, fraction)
        for name, masked in (("comprehensiveness", chosen), ("sufficiency", ~(chosen | kept_always))):
            after = probabilities(input_ids.masked_fill(masked, mask_token_id)).gather(1, targets[:, None])[:, 0]
            made[name].append(original - after)
        made["rationales"].append(chosen)
    return {name: torch.stack(values, 1) for name, values in made.items()}


def faithfulness_areas(model, batches, scores, tokenizer, **options) -> dict[str, Tensor]:
    """{"comprehensiveness", "sufficiency"}, each [N]: areas under the drops of every text of many batches, to be resampled by `bootstrap_interval`.

    Args:
        batches: list of dicts with input_ids and attention_mask. scores: list of [N, L], one a batch; `random_scores` of them give the chance level.
        **options: of `perturbation_drops`.
    """
    areas = {"comprehensiveness": [], "sufficiency": []}
    for batch, importance in tqdm(list(zip(batches, scores, strict=True)), desc="masking tokens", leave=False):
        ids = batch["input_ids"]
        special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids, device=ids.device)).long()
        made = perturbation_drops(model, ids, batch["attention_mask"], importance, special, tokenizer.mask_token_id, **options)
        for name in areas:
            areas[name].append(drop_areas(made[name].cpu(), options.get("fractions", FRACTIONS)))
    return {name: torch.cat(values) for name, values in areas.items()}


def faithfulness(model, batches, scores, tokenizer, **options) -> dict[str, float]:
    """The means of `faithfulness_areas`, which are the areas under the mean drops."""
    return {name: values.mean().item() for name, values in faithfulness_areas(model, batches, scores, tokenizer, **options).items()}
