"""The laws of text data: no sentence in two splits, labels are classes that train knows, what is drawn or truncated is said."""

import io
import logging
import tarfile

import pytest
from datasets import ClassLabel, Dataset, DatasetDict
from transformers import BertTokenizerFast

from bcos_hf.data import (
    TextColumns,
    load_text_dataset,
    movie_reviews,
    normalized,
    parse_lexicon,
    parse_ratings,
    split_rated,
    text,
    tokenize,
    vader,
)


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film", "very"]
RATED = [(f"Film {i}", float(i % 9 - 4)) for i in range(180)]
TOY = {"text": ["a good film", "bad", "very good", "a bad film"] * 5, "label": ["pos", "neg", "pos", "neg"] * 5}


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    return BertTokenizerFast(str(tmp_path / "vocab.txt"), model_max_length=16)


def toy(**columns):
    return Dataset.from_dict({**TOY, **columns})


@pytest.fixture
def save(tmp_path):
    def write(name, data=None, **columns):
        path = tmp_path / name
        data = toy(**columns) if data is None else data
        getattr(data, {"csv": "to_csv", "json": "to_json", "jsonl": "to_json", "parquet": "to_parquet"}[path.suffix[1:]])(path)
        return path

    return write


# -- ratings


def test_no_sentence_is_in_two_splits():
    rows = RATED + [(f"  film   {i} ", 3.0) for i in range(0, 180, 2)]  # the same sentences in other clothes
    splits = [{normalized(sentence) for sentence in rows["text"]} for rows in split_rated(rows).values()]
    assert sum(map(len, splits)) == len(set.union(*splits)) == len({normalized(sentence) for sentence, rating in rows if rating})


def test_the_seed_decides_the_split():
    first, again, other = split_rated(RATED, seed=3), split_rated(RATED, seed=3), split_rated(RATED, seed=4)
    assert all(first[split].to_dict() == again[split].to_dict() for split in first)
    assert set(first["test"]["text"]) != set(other["test"]["text"])


def test_labels_are_the_signs_and_each_split_has_both_alike():
    dataset = split_rated(RATED, validation=0.2, test=0.1)
    for rows in dataset.values():
        assert [rows.features["label"].names[label] for label in rows["label"]] == ["positive" if r > 0 else "negative" for r in rows["rating"]]
    assert {split: (rows["label"][:].count(0), rows["label"][:].count(1)) for split, rows in dataset.items()} == {
        "train": (56, 56),
        "validation": (16, 16),
        "test": (8, 8),
    }


@pytest.mark.parametrize("fractions", [{"validation": 0.6, "test": 0.4}, {"test": -0.1}, {"test": 0.001}])
def test_fractions_that_leave_a_split_without_rows_are_refused(fractions):
    with pytest.raises(ValueError, match="split_rated: expected"):
        split_rated(RATED, **fractions)


def test_a_rating_line_is_read_with_its_entities_resolved():
    assert parse_ratings(["1\t-0.5\tLovely &amp;  Amazing\r", ""]) == [("Lovely & Amazing", -0.5)]
    with pytest.raises(ValueError, match="line 2: expected 'id TAB rating TAB text'"):
        parse_ratings(["1\t0.5\tgood", "2\tgood"])


def test_the_lexicon_has_words_and_the_last_line_counts():
    lines = [":)\t2.0\t0\t[]", "ok\t1.6\t0\t[]", "ok\t1.2\t0\t[]", "fed up\t-1.8\t0\t[]", ""]
    assert parse_lexicon(lines) == {"ok": 1.2}
    assert parse_lexicon(lines, words_only=False) == {":)": 2.0, "ok": 1.2, "fed up": -1.8}


def test_the_embedded_reviews_come_from_the_archive(tmp_path, monkeypatch):
    (tmp_path / "additional_resources").mkdir()
    content = "".join(f"{i}\t{rating}\tCaf\u00e9 {sentence}\r\n" for i, (sentence, rating) in enumerate(RATED)).encode()
    with tarfile.open(tmp_path / "additional_resources" / "hutto_ICWSM_2014.tar.gz", "w:gz") as file:
        member = tarfile.TarInfo(vader._SENTENCES)
        member.size = len(content)
        file.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(vader, "vader_sdist", lambda: tmp_path)
    assert movie_reviews()["train"]["text"][0].startswith("Caf\u00e9 Film")
    dataset, columns = load_text_dataset("vader-movie-reviews", max_train_samples=10, max_eval_samples=4)
    assert {split: len(rows) for split, rows in dataset.items()} == {"train": 10, "validation": 4, "test": 4}
    assert columns == TextColumns("text", None, "label") and dataset["train"].features["label"].names == ["negative", "positive"]


# -- files, columns, labels


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet"])
def test_each_kind_of_file_gives_the_same_rows(kind, save):
    dataset, columns = load_text_dataset(None, train_file=save(f"a.{kind}"), validation_file=save(f"b.{kind}"), test_file=save(f"c.{kind}"))
    assert columns == TextColumns("text", None, "label") and list(dataset) == ["train", "validation", "test"]
    assert dataset["test"].features["label"] == ClassLabel(names=["neg", "pos"])
    assert dataset["test"]["text"][:] == TOY["text"] and dataset["test"]["label"][:] == [1, 0, 1, 0] * 5


def test_words_that_pandas_takes_for_missing_stay_words(save):
    dataset, _ = load_text_dataset(None, train_file=save("a.csv", text=["null", "NA", "None", "nan"] * 5), validation_file=save("b.csv"))
    assert dataset["train"]["text"][:4] == ["null", "NA", "None", "nan"]


def test_a_missing_validation_is_drawn_from_train_and_stands_in_for_test(save, caplog):
    file = save("a.csv", text=[f"row {i}" for i in range(20)])
    dataset, _ = load_text_dataset(None, train_file=file, validation_fraction=0.25, seed=1)
    again, _ = load_text_dataset(None, train_file=file, validation_fraction=0.25, seed=1)
    assert len(dataset["validation"]) == 5 and not set(dataset["train"]["text"]) & set(dataset["validation"]["text"])
    assert dataset["test"].to_dict() == dataset["validation"].to_dict() == again["validation"].to_dict()
    assert "5 rows of train, drawn with seed 1" in caplog.text and "validation is used as test" in caplog.text


@pytest.mark.parametrize(
    ("labels", "names"),
    [([0, 1, 2, 1], ["0", "1", "2"]), ([True, False, True, True], ["False", "True"]), (["b", "a", "b", "a"], ["a", "b"])],
)
def test_labels_become_classes(labels, names, save):
    dataset, _ = load_text_dataset(None, train_file=save("a.jsonl", label=labels * 5), validation_file=save("b.jsonl", label=labels * 5))
    assert dataset["train"].features["label"].names == names
    assert [names[label] for label in dataset["train"]["label"][:4]] == [str(label) for label in labels]


@pytest.mark.parametrize(
    ("columns", "given", "found"),
    [
        ({"text": None, "Review": TOY["text"]}, {}, ("Review", "label")),
        ({"text": None, "words": TOY["text"], "number": [1] * 20}, {}, ("words", "label")),
        ({"other": TOY["text"]}, {"text_column": "other"}, ("other", "label")),
        ({"label": None, "stars": TOY["label"]}, {"label_column": "stars"}, ("text", "stars")),
    ],
)
def test_columns_are_found_by_name_or_type(columns, given, found, save):
    data = Dataset.from_dict({name: values for name, values in {**TOY, **columns}.items() if values is not None})
    _, columns = load_text_dataset(None, train_file=save("a.parquet", data), **given)
    assert (columns.text, columns.label) == found


@pytest.mark.parametrize(
    ("columns", "given", "message"),
    [
        ({"text": None, "x": ["a"] * 20, "y": ["b"] * 20}, {}, r"columns \['x', 'y'\].*text_column"),
        ({"label": None, "x": [1] * 20}, {}, r"columns \['text', 'x'\].*label_column"),
        ({}, {"text_column": "words"}, r"text_column='words': expected one of the columns \['text'\]"),
        ({}, {"second_text_column": "words"}, r"second_text_column='words'"),
        ({"number": [1] * 20}, {"text_column": "number"}, "expected strings in 'number', found Value"),
        ({"text": ["a", None] * 10}, {}, "found 10 of 20 rows without one in 'text'"),
        ({"label": [-1, 0, 1, 0] * 5}, {}, r"train: expected labels 0, 1, ... without a gap, found \[-1, 0, 1\]"),
        ({"label": [1, 2, 3, 5] * 5}, {}, r"found \[1, 2, 3, 5\]"),
        ({"label": [0.5] * 20}, {}, "whole numbers as labels, found float64"),
        ({"label": [[1]] * 20}, {}, "whole numbers as labels, found List"),
        ({"label": ["a", None] * 10}, {}, r"found \[None\] in 'label'"),
        ({}, {"validation_fraction": 0.0}, "validation_fraction=0.0"),
        ({}, {"max_train_samples": 0}, "expected at least 1, got 0"),
    ],
)
def test_what_cannot_be_right_is_refused_with_what_was_found(columns, given, message, save):
    data = Dataset.from_dict({name: values for name, values in {**TOY, **columns}.items() if values is not None})
    with pytest.raises(ValueError, match=message):
        load_text_dataset(None, train_file=save("a.parquet", data), **given)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": ["pos", "new"] * 10}, r"validation: expected labels out of \['neg', 'pos'\] as in train, found \['new'\]"),
        ({"text": [1] * 20}, "validation: expected strings in 'text'"),
    ],
)
def test_validation_must_fit_train(columns, message, save):
    with pytest.raises(ValueError, match=message):
        load_text_dataset(None, train_file=save("a.json"), validation_file=save("b.json", **columns))


def test_a_class_label_keeps_its_names_and_must_agree(save):
    known, swapped = (toy().cast_column("label", ClassLabel(names=names)) for names in (["neg", "pos"], ["pos", "neg"]))
    assert load_text_dataset(None, train_file=save("a.parquet", known))[0]["train"].features["label"].names == ["neg", "pos"]
    with pytest.raises(ValueError, match="validation: expected the class names"):
        load_text_dataset(None, train_file=save("a.parquet", known), validation_file=save("b.parquet", swapped))


def test_hidden_test_labels_are_said_and_not_used(save, caplog):
    numbers = [0, 1] * 10
    files = {
        "train_file": save("a.csv", label=numbers),
        "validation_file": save("b.csv", label=numbers),
        "test_file": save("c.csv", label=[-1] * 20),
    }
    dataset, _ = load_text_dataset(None, **files)
    assert dataset["test"]["label"][:] == numbers and "labels are hidden" in caplog.text


def test_files_that_are_no_data_are_refused(save, tmp_path):
    (tmp_path / "a.xlsx").touch()
    (tmp_path / "empty.csv").touch()
    (tmp_path / "header.csv").write_text("text,label\n")
    for name, error, message in [
        ("gone.csv", FileNotFoundError, "gone.csv"),
        ("a.xlsx", ValueError, "ends in one of .csv"),
        ("empty.csv", ValueError, "empty.csv: could not be read: .*No columns"),
        ("header.csv", ValueError, "header.csv: could not be read: .*no data"),
    ]:
        with pytest.raises(error, match=message):
            load_text_dataset(None, train_file=tmp_path / name)
    with pytest.raises(ValueError, match="either name_or_path or files"):
        load_text_dataset(None)
    with pytest.raises(ValueError, match="either name_or_path or files"):
        load_text_dataset("imdb", train_file=tmp_path / "header.csv")
    with pytest.raises(ValueError, match="expected a split 'train'"):
        load_text_dataset(None, test_file=save("t.csv"))


def test_a_folder_with_a_split_called_dev_goes_the_hub_way(tmp_path):
    (tmp_path / "set").mkdir()
    for split in ("train", "dev"):
        toy().to_csv(tmp_path / "set" / f"{split}.csv")
    dataset, _ = load_text_dataset(str(tmp_path / "set"), max_train_samples=8, seed=1)
    assert len(dataset["train"]) == 8 and len(dataset["validation"]) == 20


# -- tokens


def classes(**columns):
    return DatasetDict({split: toy(**columns).cast_column("label", ClassLabel(names=["neg", "pos"])) for split in ("train", "test")})


def test_tokenize_gives_what_a_model_takes_and_says_what_it_cut(tokenizer, caplog):
    columns = TextColumns("text", None, "label")
    tokenized = tokenize(classes(), tokenizer, columns, max_length=4)  # [CLS], two words, [SEP]
    assert set(tokenized["train"].column_names) == {"input_ids", "attention_mask", "token_type_ids", "labels"}
    assert tokenized["train"]["input_ids"][:2] == [[2, 5, 6, 3], [2, 7, 3]] and tokenized["train"].features["labels"].names == [
        "neg",
        "pos",
    ]
    assert "truncated to 4 tokens: 10 of 20 in train, 10 of 20 in test" in caplog.text  # "very good" fits exactly


def test_nothing_is_said_where_nothing_is_cut(tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        tokenized = tokenize(classes(), tokenizer, TextColumns("text", None, "label"))
    assert max(map(len, tokenized["train"]["input_ids"])) == 5 and not caplog.records


def test_the_length_of_the_tokenizer_is_a_limit_too(tokenizer, caplog):
    tokenized = tokenize(classes(text=["good " * 40] * 20), tokenizer, TextColumns("text", None, "label"), max_length=512)
    assert {len(ids) for ids in tokenized["train"]["input_ids"]} == {16} and "truncated to 16 tokens: 20 of 20" in caplog.text


def test_pairs_are_encoded_together(tokenizer):
    tokenized = tokenize(classes(second=["bad film"] * 20), tokenizer, TextColumns("text", "second", "label"))
    assert tokenized["train"][1]["input_ids"] == [2, 7, 3, 7, 8, 3] and tokenized["train"][1]["token_type_ids"] == [0, 0, 0, 1, 1, 1]


def test_tokenize_refuses_an_empty_split_and_a_length_without_room(tokenizer):
    columns, dataset = TextColumns("text", None, "label"), classes()
    with pytest.raises(ValueError, match="test: expected at least one row"):
        tokenize(DatasetDict({"train": dataset["train"], "test": dataset["test"].select([])}), tokenizer, columns)
    with pytest.raises(ValueError, match="max_length=2: expected more than 2"):
        tokenize(dataset, tokenizer, columns, max_length=2)
    tokenizer.model_max_length = int(1e30)  # what transformers says for "unknown"
    with pytest.raises(ValueError, match=r"max_length=None: expected .* a number"):
        tokenize(dataset, tokenizer, columns)


def test_the_tables_of_names_are_lower_case():
    assert all(name == name.lower() for name in (*text.TEXT_NAMES, *text.LABEL_NAMES))
