"""Rank correlation of word contributions with human word valence: do words that people find positive speak for 'positive'? Range [-1, 1], higher is better.

The lexicon is independent of the training labels. Source of the valences: Hutto & Gilbert, VADER, ICWSM 2014.
"""

from collections.abc import Callable

import datasets
import evaluate
import numpy as np
from tqdm.auto import tqdm

from bcos_hf.metrics.rank_agreement import spearman
from bcos_hf.models.bcos_text import with_tokens


def rated_words(explain: Callable, tokenizer, texts: list[str], valence: dict[str, float], batch_size: int = 64) -> list[list[tuple[float, float]]]:
    """(contribution, human rating) of every occurrence of a rated word, for each text.

    Args:
        explain: a callable like `model.explain`, for a classifier whose classes are negative (0) and positive (1); called with targets=1, contrast=0.
        texts: sentences. valence: lower-case word -> human rating.

    Raises:
        ValueError: fewer than two rated words in the texts.
    """
    found = []
    for start in tqdm(range(0, len(texts), batch_size), desc="word valence", leave=False):
        inputs = tokenizer(texts[start : start + batch_size], padding=True, truncation=True, return_tensors="pt")
        explanation = with_tokens(explain(targets=1, contrast=0, **inputs), tokenizer, inputs["input_ids"], inputs["attention_mask"]).merge_words()
        for words, contributions in zip(explanation.tokens, explanation.contributions[:, 0].tolist(), strict=True):
            rows = zip(words, contributions, strict=True)
            found.append([(contribution, valence[word.lower()]) for word, contribution in rows if word.lower() in valence])
    if sum(map(len, found)) < 2:
        raise ValueError(f"word_valence_correlation: expected at least two rated words in the texts, found {sum(map(len, found))}.")
    return found


def word_valence_correlation(explain: Callable, tokenizer, texts: list[str], valence: dict[str, float], batch_size: int = 64) -> float:
    """Spearman's rho over all occurrences of rated words, 0 where all are equal; arguments and errors as for `rated_words`."""
    return _rho(rated_words(explain, tokenizer, texts, valence, batch_size))


def word_valence_interval(rated: list[list[tuple[float, float]]], confidence: float = 0.95, n_resamples: int = 1000, seed: int = 0) -> dict[str, float]:
    """Spearman's rho over what `rated_words` found and its percentile interval, texts resampled, and what shuffled contributions give.

    Returns:
        {"rho", "low", "high", "random", "n" (texts with a rated word), "seed"}.
    """
    rated, generator = [rows for rows in rated if rows], np.random.default_rng(seed)
    resampled = [_rho([rated[i] for i in generator.integers(len(rated), size=len(rated))]) for _ in range(n_resamples)]
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    given, ratings = np.array([pair for rows in rated for pair in rows]).T
    chance = spearman(generator.permutation(given), ratings)
    return {"rho": _rho(rated), "low": float(low), "high": float(high), "random": chance, "n": len(rated), "seed": seed}


def _rho(rated: list[list[tuple[float, float]]]) -> float:
    return spearman(*zip(*(pair for rows in rated for pair in rows), strict=True))


class WordValence(evaluate.Metric):
    """`compute(predictions=contributions [N, L], references=valences [N, L])` of the rated words of N texts: Spearman's rho over all with its 95 % interval."""

    def _info(self):
        numbers = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Wang et al., B-cos LM: Efficiently Transforming Pre-trained Language Models for Improved Explainability, TMLR 2025.",
            inputs_description="predictions: for each text the contributions of its rated words, positive less negative class; references: people's ratings.",
            features=datasets.Features({"predictions": numbers, "references": numbers}),
        )

    def _compute(self, predictions, references, seed=0):
        rated = [list(zip(*rows, strict=True)) for rows in zip(predictions, references, strict=True)]
        made = word_valence_interval(rated, seed=seed)
        named = {f"word_valence_{key}": made[key] for key in ("low", "high", "random")}
        return {"word_valence": made["rho"], **named, "n": made["n"], "seed": seed}
