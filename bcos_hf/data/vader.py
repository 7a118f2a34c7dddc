"""Movie-review sentences and words with human ratings from VADER: small, licensed (MIT), and without a hub.

Hutto & Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014. The sentences are from
the reviews of Pang & Lee, "Seeing stars", ACL 2005; several people rated each from -4 (extremely negative) to 4 (extremely positive).
"""

import html
import random
import tarfile
from collections.abc import Iterable

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from .assets import vader_sdist


LABELS = ("negative", "positive")
FEATURES = Features({"text": Value("string"), "rating": Value("float32"), "label": ClassLabel(names=list(LABELS))})
_SENTENCES = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"


def normalized(text: str) -> str:
    """`text` in lower case, with single spaces: two sentences that agree in this are the same sentence."""
    return " ".join(text.casefold().split())


def split_rated(rows: Iterable[tuple[str, float]], seed: int = 0, validation: float = 0.1, test: float = 0.1) -> DatasetDict:
    """Rated sentences as train, validation and test: seeded, stratified by label, no sentence (as `normalized`) in two splits.

    A row is (text, mean rating). The label is the sign of the rating; a rating of exactly 0 has none and is dropped, and of several
    rows with the same sentence the first is kept. A split holds
    `round(fraction * n)` of the n sentences of each label; one with fraction 0 is left out.

    Raises:
        ValueError: a fraction is negative, together they leave no training data, or a split has no row of some label.
    """
    fractions = {"validation": validation, "test": test}
    if not (min(fractions.values()) >= 0 and sum(fractions.values()) < 1):
        raise ValueError(f"split_rated: expected fractions >= 0 with a sum below 1, got {fractions}.")
    unique: dict[str, tuple[str, float]] = {}
    for text, rating in rows:
        if rating != 0:
            unique.setdefault(normalized(text), (text, rating))
    shuffled = random.Random(seed)
    splits: dict[str, list[tuple[str, float, int]]] = {"train": []} | {k: [] for k, v in fractions.items() if v}
    for label, name in enumerate(LABELS):
        rest = [(text, rating, label) for text, rating in unique.values() if (rating > 0) == bool(label)]
        shuffled.shuffle(rest)
        sizes = {split: round(fractions[split] * len(rest)) for split in splits if split != "train"}
        sizes["train"] = len(rest) - sum(sizes.values())
        if min(sizes.values()) < 1:
            raise ValueError(f"split_rated: expected {name} sentences in every split, got {sizes}.")
        for split, size in sizes.items():
            splits[split] += rest[:size]
            rest = rest[size:]
    for rated in splits.values():
        shuffled.shuffle(rated)
    return DatasetDict({split: _dataset(rated) for split, rated in splits.items()})


def _dataset(rated: list[tuple[str, float, int]]) -> Dataset:
    return Dataset.from_dict(dict(zip(FEATURES, map(list, zip(*rated, strict=True)), strict=True)), features=FEATURES)


def parse_ratings(lines: Iterable[str]) -> list[tuple[str, float]]:
    """(text, mean rating) of lines 'id TAB rating TAB text' with HTML entities resolved and white space folded.

    Raises ValueError with the line's number if a line has another form.
    """
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                _, rating, text = line.split("\t")
                rows.append((" ".join(html.unescape(text).split()), float(rating)))
            except ValueError as error:
                raise ValueError(f"line {number}: expected 'id TAB rating TAB text', got {line[:80]!r}.") from error
    return rows


def movie_reviews(seed: int = 0, validation: float = 0.1, test: float = 0.1) -> DatasetDict:
    """The movie-review sentences of VADER as train, validation and test: `text`, `rating` (mean, -4..4), `label` (negative, positive).

    Splits as `split_rated`; raises as it does and as `assets.fetch`. Downloads 2.5 MB once. Hutto & Gilbert 2014, Pang & Lee 2005.
    """
    with tarfile.open(vader_sdist() / "additional_resources" / "hutto_ICWSM_2014.tar.gz") as archive:
        text = archive.extractfile(_SENTENCES).read().decode("utf-8")
    return split_rated(parse_ratings(text.split("\n")), seed, validation, test)


def parse_lexicon(lines: Iterable[str], words_only: bool = True) -> dict[str, float]:
    """Word -> mean valence of lines 'word TAB mean TAB ...'; of several lines for a word the last counts, as in VADER.

    `words_only` leaves out emoticons, numbers and entries of several words: what is not one run of letters.
    """
    rated = (line.split("\t") for line in lines if line.strip())
    return {word: float(mean) for word, mean, *_ in rated if word.isalpha() or not words_only}


def lexicon(words_only: bool = True) -> dict[str, float]:
    """The VADER lexicon: word -> mean human valence, -4 (negative) to 4 (positive), of ten raters. Hutto & Gilbert 2014 (ICWSM).

    `words_only` as in `parse_lexicon`. Raises as `assets.fetch`.
    """
    text = (vader_sdist() / "vaderSentiment" / "vader_lexicon.txt").read_text(encoding="utf-8")
    return parse_lexicon(text.split("\n"), words_only)
