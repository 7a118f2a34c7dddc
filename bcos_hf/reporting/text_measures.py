"""Measures of explanations of texts, as in common_measures.py."""

from bcos_hf.data import lexicon
from bcos_hf.metrics import faithfulness_areas, play_sequence_pointing_game, sample_pairs
from bcos_hf.metrics.word_valence import rated_words, word_valence_interval

from .common_measures import COMMON, interval
from .rationales import human_rationales
from .subjects import TextSubject


def faithfulness(subject: TextSubject, subjects: dict[str, TextSubject], count: int) -> dict:
    """Comprehensiveness and sufficiency."""
    batches, made = [inputs for inputs, _ in subject.batches(count)], {}
    for name, explain in subject.explainers.items():
        scores = [explain(**batch).contributions[:, 0].to(subject.device) for batch in batches]
        areas = faithfulness_areas(subject.model, batches, scores, subject.tokenizer)
        made[name] = {measure: interval(values, subject.seed) for measure, values in areas.items()}
    return made


def word_valence(subject: TextSubject, subjects: dict[str, TextSubject], count: int) -> dict:
    """Rank correlation with VADER's ratings; for two classes, negative and positive."""
    made = {}
    for name, explain in subject.explainers.items():
        found = word_valence_interval(rated_words(explain, subject.tokenizer, subject.texts[:count], lexicon()), seed=subject.seed)
        made[name] = {"word_valence": {"mean": found.pop("rho"), **found}}
    return made


def rationales(subject: TextSubject, subjects: dict[str, TextSubject], column: str, count: int) -> dict:
    """Token F1, IoU F1 and AUPRC of passages that people quoted from the text; `column` holds them."""
    split, columns = subject.rows
    marked = split.select(range(min(count, len(split))))
    rows = {"text": list(marked[columns.text]), "label": list(marked[columns.label]), "passages": list(marked[column])}
    return {
        name: human_rationales(explain, subject.tokenizer, rows, subject.arguments[1].max_length, subject.seed) for name, explain in subject.explainers.items()
    }


def sequence_pointing_game(subject: TextSubject, subjects: dict[str, TextSubject], judge: str, count: int) -> dict:
    """SeqPG, on pairs of the model `judge`'s confident texts."""
    pairs = sample_pairs(subjects[judge].confident, count)
    played = play_sequence_pointing_game(pairs, subject.explainers, subject.tokenizer, seed=subject.seed)
    return {name: {"sequence_pointing_game": {key: played[name][key] for key in ("mean", "low", "high", "n")}} for name in subject.explainers}


TEXT_MEASURES = {
    "faithfulness": faithfulness,
    "sequence_pointing_game": sequence_pointing_game,
    "word_valence": word_valence,
    "human_rationales": rationales,
    **COMMON,
}
