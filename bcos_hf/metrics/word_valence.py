"""Rank correlation of word contributions with human word valence: do words that people find positive speak for 'positive'? Range [-1, 1], higher is better.

The lexicon is independent of the training labels. Source of the valences: Hutto & Gilbert, VADER, ICWSM 2014.
"""

from collections.abc import Callable

from scipy.stats import spearmanr
from tqdm.auto import tqdm

from bcos_hf.models.bcos_text import with_tokens


def word_valence_correlation(explain: Callable, tokenizer, texts: list[str], valence: dict[str, float], batch_size: int = 64) -> float:
    """Spearman's rho over all occurrences of rated words.

    Args:
        explain: a callable like `model.explain`, for a classifier whose classes are negative (0) and positive (1); called with targets=1, contrast=0.
        texts: sentences. valence: lower-case word -> human rating.

    Raises:
        ValueError: fewer than two rated words in the texts.
    """
    given, rated = [], []
    for start in tqdm(range(0, len(texts), batch_size), desc="word valence", leave=False):
        inputs = tokenizer(texts[start : start + batch_size], padding=True, truncation=True, return_tensors="pt")
        explanation = with_tokens(explain(targets=1, contrast=0, **inputs), tokenizer, inputs["input_ids"], inputs["attention_mask"]).merge_words()
        for words, contributions in zip(explanation.tokens, explanation.contributions[:, 0].tolist(), strict=True):
            found = [(contribution, valence[word.lower()]) for word, contribution in zip(words, contributions, strict=True) if word.lower() in valence]
            given += [contribution for contribution, _ in found]
            rated += [rating for _, rating in found]
    if len(rated) < 2:
        raise ValueError(f"word_valence_correlation: expected at least two rated words in the texts, found {len(rated)}.")
    return float(spearmanr(given, rated).statistic)
