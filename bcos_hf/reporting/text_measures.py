"""Measures of explanations of texts, of several models and methods, on the same test texts."""

from transformers import AutoTokenizer

from bcos_hf.data import lexicon, load_text_dataset
from bcos_hf.metrics import bootstrap_interval, confident_texts, faithfulness_areas, play_sequence_pointing_game, sample_pairs
from bcos_hf.metrics.word_valence import rated_words, word_valence_interval

from .explainers import explainers_of
from .rationales import human_rationales


def _batches(texts: list[str], tokenizer, max_length: int, size: int = 32) -> list[dict]:
    texts = sorted(texts, key=len)  # little padding
    rows = (texts[i : i + size] for i in range(0, len(texts), size))
    return [dict(tokenizer(row, padding=True, truncation=True, max_length=max_length, return_tensors="pt")) for row in rows]


def measure_texts(experiment, models: dict, folders: dict, arguments: tuple, seed: int) -> dict:
    """model -> explainer -> measure -> interval, see `run_experiment`.

    Measures: faithfulness {count} (comprehensiveness and sufficiency), sequence_pointing_game {judge, count} (pairs of the judge's confident texts),
    word_valence {count} (rank correlation with VADER's ratings; for two classes, negative and positive), human_rationales {column, count} (token F1, IoU F1
    and AUPRC; the column holds lists of passages quoted from the text).
    """
    d = arguments[1]
    data, columns = load_text_dataset(
        d.dataset_name, d.dataset_config_name, d.train_file, d.validation_file, d.test_file, d.dataset_revision, d.text_column, d.second_text_column,
        d.label_column, d.max_train_samples, d.max_eval_samples, seed=arguments[2].data_seed or 0,
    )  # fmt: skip
    texts, labels = list(data["test"][columns.text]), list(data["test"][columns.label])
    tokenizer = AutoTokenizer.from_pretrained(next(iter(folders.values())))
    wanted, made = experiment.measures, {model: {} for model in models}
    explainers = explainers_of(experiment, models, seed)
    for model, name, explain in explainers:
        found = made[model][name] = {}
        if "faithfulness" in wanted:
            device = models[model].device
            batches = _batches(texts[: wanted["faithfulness"]["count"]], tokenizer, d.max_length)
            batches = [{key: value.to(device) for key, value in batch.items()} for batch in batches]
            scores = [explain(**batch).contributions[:, 0].to(device) for batch in batches]
            areas = faithfulness_areas(models[model], batches, scores, tokenizer)
            found |= {measure: {**bootstrap_interval(values, seed=seed), "n": len(values)} for measure, values in areas.items()}
        if "word_valence" in wanted:
            rated = rated_words(explain, tokenizer, texts[: wanted["word_valence"]["count"]], lexicon())
            interval = word_valence_interval(rated, seed=seed)
            found["word_valence"] = {"mean": interval.pop("rho"), **interval}
        if "human_rationales" in wanted:
            marked = data["test"].select(range(min(wanted["human_rationales"]["count"], len(texts))))
            rows = {"text": list(marked[columns.text]), "label": list(marked[columns.label]), "passages": list(marked[wanted["human_rationales"]["column"]])}
            found |= human_rationales(explain, tokenizer, rows, d.max_length, seed)
    if "sequence_pointing_game" in wanted:
        options = wanted["sequence_pointing_game"]
        pairs = sample_pairs(confident_texts(models[options["judge"]], tokenizer, texts, labels), options["count"])
        for model, name, explain in explainers:
            played = play_sequence_pointing_game(pairs, {name: explain}, tokenizer, seed=seed)
            made[model][name]["sequence_pointing_game"] = {key: played[name][key] for key in ("mean", "low", "high", "n")}
    return made
