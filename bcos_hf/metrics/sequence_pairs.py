"""Pairs of texts for the sequence pointing game: a conventional model's confident texts, cut to one length, two of different classes in one input.

Source: Wang et al., TMLR 2025 (arXiv 2502.12992) section 5, and the protocol as run: texts of at least m tokens are cut to m (special ones counted), a pair
to 2 m - 1. That leaves 2 m - 4 counted tokens where one separator parts the texts (BERT) and 2 m - 5 where two do (RoBERTa), halved, rounded down.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .bootstrap import bootstrap_interval
from .finite import check_finite
from .random_scores import random_scores
from .sequence_pointing_game import sequence_pointing_shares


@dataclass(frozen=True)
class Pair:
    """Two texts of two classes, and how confident the model that chose them is of each."""

    texts: tuple[str, str]
    labels: tuple[int, int]
    confidences: tuple[float, float]


def cut_texts(tokenizer, texts: list[str], labels: list[int], max_length: int) -> tuple[list[str], list[int]]:
    """The texts of at least `max_length` tokens, special ones counted, cut to so many, and their labels."""
    rows = tokenizer(texts, truncation=True, max_length=max_length, return_special_tokens_mask=True)
    kept = [
        (tokenizer.decode([token for token, special in zip(ids, specials, strict=True) if not special]), label)
        for ids, specials, label in zip(rows["input_ids"], rows["special_tokens_mask"], labels, strict=True)
        if len(ids) == max_length
    ]
    return [text for text, _ in kept], [label for _, label in kept]


@torch.no_grad()
def confident_texts(
    model, tokenizer, texts: list[str], labels: list[int], max_length: int | None = None, threshold: float = 0.5, batch_size: int = 32
) -> dict[int, list[tuple[str, float]]]:
    """Class -> (text, confidence) of its texts that are classified correctly with a probability above `threshold`, most confident first.

    Args:
        model: a conventional classifier, in evaluation mode. max_length: as published, only texts so long, cut; None: all texts, whole.
    """
    if max_length is not None:
        texts, labels = cut_texts(tokenizer, texts, labels, max_length)
    found = {label: [] for label in range(model.config.num_labels)}
    for start in tqdm(range(0, len(texts), batch_size), desc="predicting", leave=False):
        part = texts[start : start + batch_size]
        inputs = tokenizer(part, padding=True, truncation=True, max_length=max_length, return_tensors="pt").to(model.device)
        logits = model(**inputs).logits.float()
        check_finite(logits=logits)
        confidences, predicted = logits.softmax(-1).max(-1)
        for text, label, confidence, guess in zip(part, labels[start : start + batch_size], confidences.tolist(), predicted.tolist(), strict=True):
            if guess == label and confidence > threshold:
                found[label].append((text, confidence))
    return {label: sorted(rows, key=lambda row: -row[1]) for label, rows in found.items()}


def sample_pairs(texts: dict[int, list[tuple[str, float]]], count: int | None = None, seed: int = 42) -> list[Pair]:
    """Pairs of random classes, of each the most confident text not used yet; None: until fewer than two classes are left.

    With the published seed, 42, and the same texts it draws the published pairs.

    Raises:
        ValueError: too few texts or classes for `count` pairs.
    """
    left, draw, pairs = {label: list(rows) for label, rows in sorted(texts.items())}, random.Random(seed), []
    while count is None or len(pairs) < count:
        labels: list[int] = []
        for _ in range(2):
            classes = [label for label, rows in left.items() if rows and label not in labels]
            if classes:
                labels.append(draw.choice(classes))
        if len(labels) < 2:
            break
        chosen = [left[label].pop(0) for label in labels]
        pairs.append(Pair(tuple(text for text, _ in chosen), tuple(labels), tuple(confidence for _, confidence in chosen)))
    if count is not None and len(pairs) < count:
        sizes = {label: len(rows) for label, rows in texts.items()}
        raise ValueError(f"sample_pairs: expected confident texts for {count} pairs, found enough for {len(pairs)}, {sizes} of the classes; ask for fewer.")
    return pairs


def pair_inputs(pairs: list[Pair], tokenizer, max_length: int | None = None) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """What a model takes, in which tokens count (bool [G, L], neither padding nor special), and how many the first text has [G].

    Args:
        tokenizer: a fast one. max_length: of a text, as given to `confident_texts`.
    """
    given = {"max_length": None if max_length is None else 2 * max_length - 1, "truncation": True, "padding": True, "return_tensors": "pt"}
    rows = tokenizer([pair.texts[0] for pair in pairs], [pair.texts[1] for pair in pairs], **given)
    texts = torch.tensor([[-1 if text is None else text for text in rows.sequence_ids(index)] for index in range(len(pairs))])
    return dict(rows), texts >= 0, (texts == 0).sum(1)


def play_sequence_pointing_game(
    pairs: list[Pair], explainers: dict[str, Callable], tokenizer, max_length: int | None = None, halves: bool = False, batch_size: int = 16, seed: int = 0
) -> dict[str, dict]:
    """Mean share of each explainer, and of random scores, on the same pairs, with its 95 % interval over pairs.

    Args:
        explainers: name -> a callable like `model.explain`, called with the inputs of pairs and targets [G, 2].
        halves: where the first text ends: at half of the counted tokens, as published, or where it does end.

    Returns:
        name -> {"mean", "low", "high", "n", "seed", "max_relative_residual"}; "random" is among the names.
    """
    shares, residuals, noise = {name: [] for name in (*explainers, "random")}, dict.fromkeys(explainers, 0.0), torch.Generator().manual_seed(seed)
    for start in tqdm(range(0, len(pairs), batch_size), desc="sequence pointing game", leave=False):
        part = pairs[start : start + batch_size]
        inputs, counted, boundaries = pair_inputs(part, tokenizer, max_length)
        ends = None if halves else boundaries
        for name, explain in explainers.items():
            made = explain(targets=torch.tensor([pair.labels for pair in part]), **inputs)
            shares[name].append(sequence_pointing_shares(made.contributions.cpu(), counted, ends).mean(1))
            residuals[name] = max(residuals[name], made.relative_residual.max().item())
        scores = random_scores(torch.zeros(len(part), 2, counted.shape[1]), noise)
        shares["random"].append(sequence_pointing_shares(scores, counted, ends).mean(1))
    return {
        name: {**bootstrap_interval(torch.cat(values), seed=seed), "n": len(pairs), "seed": seed, "max_relative_residual": residuals.get(name)}
        for name, values in shares.items()
    }
