"""A labelled text data set as train, validation and test, and as what a model takes: from the Hub, local files or the embedded reviews."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, load_dataset
from datasets.exceptions import DatasetGenerationError
from transformers import PreTrainedTokenizerBase
from transformers.tokenization_utils_base import LARGE_INTEGER
from transformers.utils import logging

from .vader import movie_reviews


logger = logging.get_logger(__name__)

EMBEDDED = "vader-movie-reviews"
# not load_dataset, which tells the Hub about local files too; in a csv file "null" and "NA" are words
READERS = {".csv": partial(Dataset.from_csv, keep_default_na=False, na_values=[""]), ".parquet": Dataset.from_parquet}
READERS |= {".json": Dataset.from_json, ".jsonl": Dataset.from_json}
# split -> its names; the last one found is taken
SPLITS = {"train": ["train"], "validation": ["validation_matched", "dev", "val", "valid", "validation"], "test": ["test_matched", "test"]}
TEXT_NAMES = ("text", "sentence", "content", "review", "document", "comment", "review_body")
LABEL_NAMES = ("label", "labels", "coarse_label", "sentiment", "target", "class", "category")


@dataclass(frozen=True)
class TextColumns:
    """The names of the columns that hold the text, the second text of a pair (None: single texts) and the label."""

    text: str
    second_text: str | None
    label: str


def _read(file: str | Path) -> Dataset:
    if Path(file).suffix.lower() not in READERS:
        raise ValueError(f"{file}: expected a file that ends in one of {', '.join(READERS)}.")
    try:
        return READERS[Path(file).suffix.lower()](str(file))
    except (DatasetGenerationError, ValueError) as error:
        raise ValueError(f"{file}: could not be read: {error.__cause__ or error}") from error


def _column(given: str | None, names: Sequence[str], fallback: list[str], found: list[str], argument: str) -> str:
    if given is not None and given not in found:
        raise ValueError(f"{argument}={given!r}: expected one of the columns {found}.")
    by_name = {column.lower(): column for column in found}
    known = [by_name[name] for name in names if name in by_name] or (fallback if len(fallback) == 1 else [])
    if given is None and not known:
        raise ValueError(f"None of the columns {found} is known by its name or its type. Say which one with {argument}.")
    return given or known[0]


def _is_text(dataset: Dataset, column: str) -> bool:
    return getattr(dataset.features[column], "dtype", None) in ("string", "large_string")


def _columns(train: Dataset, text: str | None, second_text: str | None, label: str | None) -> TextColumns:
    found = train.column_names
    label = _column(label, LABEL_NAMES, [c for c in found if isinstance(train.features[c], ClassLabel)], found, "label_column")
    others = [c for c in found if c != label]
    text = _column(text, TEXT_NAMES, [c for c in others if _is_text(train, c)], others, "text_column")
    return TextColumns(text, second_text and _column(second_text, (), [], others, "second_text_column"), label)


def _check(split: str, rows: Dataset, columns: TextColumns) -> None:
    if not len(rows):
        raise ValueError(f"{split}: expected at least one row, found none.")
    if missing := {column for column in astuple(columns) if column} - set(rows.column_names):
        raise ValueError(f"{split}: expected the columns {sorted(missing)} as in train, found {rows.column_names}.")
    for column in filter(None, (columns.text, columns.second_text)):
        if not _is_text(rows, column):
            raise ValueError(f"{split}: expected strings in {column!r}, found {rows.features[column]}. Choose a column with text_column.")
        if empty := rows.data.column(column).null_count:
            raise ValueError(f"{split}: expected a text in every row, found {empty} of {len(rows)} rows without one in {column!r}.")


def _class_names(train: Dataset, label: str) -> list[str]:
    feature = train.features[label]
    if isinstance(feature, ClassLabel):
        return feature.names
    dtype = getattr(feature, "dtype", type(feature).__name__)
    if not any(kind in dtype for kind in ("string", "int", "bool")):
        raise ValueError(f"train: expected names or whole numbers as labels, found {dtype} in {label!r}. Choose another label_column.")
    values = sorted(value for value in train.unique(label) if value is not None)
    if "int" in dtype and values != list(range(len(values))):
        raise ValueError(f"train: expected labels 0, 1, ... without a gap, found {values[:20]} in {label!r}. Renumber them from 0.")
    return ["False", "True"] if dtype == "bool" else [str(value) for value in values]


def _with_class_labels(dataset: DatasetDict, label: str) -> DatasetDict:
    names = _class_names(dataset["train"], label)
    if "test" in dataset and dataset["test"].unique(label) == [-1]:
        logger.warning("test: its labels are hidden (all are -1), so it is left out.")
        dataset = DatasetDict({split: rows for split, rows in dataset.items() if split != "test"})
    allowed = names if _is_text(dataset["train"], label) else range(len(names))
    for split, rows in dataset.items():
        if getattr(rows.features[label], "names", names) != names:
            raise ValueError(f"{split}: expected the class names {names} as in train, found {rows.features[label].names}.")
        if unknown := [value for value in rows.unique(label) if value not in allowed]:
            raise ValueError(f"{split}: expected labels out of {list(allowed)[:20]} as in train, found {unknown[:20]} in {label!r}.")
    return dataset.cast_column(label, ClassLabel(names=names))


def _with_all_splits(dataset: DatasetDict, fraction: float, seed: int) -> DatasetDict:
    if "validation" not in dataset:
        size = round(fraction * len(dataset["train"]))
        if not 0 < size < len(dataset["train"]):
            raise ValueError(f"validation_fraction={fraction}: expected one that leaves rows in both parts of {len(dataset['train'])}.")
        parts = dataset["train"].train_test_split(test_size=size, seed=seed)
        dataset = DatasetDict({**dataset, "train": parts["train"], "validation": parts["test"]})
        logger.warning(f"There is no validation split: {size} rows of train, drawn with seed {seed}, are used.")
    if "test" not in dataset:
        logger.warning("There is no test split: validation is used as test as well.")
        dataset["test"] = dataset["validation"]
    return DatasetDict({split: dataset[split] for split in SPLITS})


def _sample(rows: Dataset, most: int | None, seed: int) -> Dataset:
    if most is not None and most < 1:
        raise ValueError(f"max_train_samples, max_eval_samples: expected at least 1, got {most}.")
    return rows if most is None or most >= len(rows) else rows.shuffle(seed=seed).select(range(most))


def load_text_dataset(
    name_or_path: str | None,
    config_name: str | None = None,
    train_file: str | Path | None = None,
    validation_file: str | Path | None = None,
    test_file: str | Path | None = None,
    revision: str | None = None,
    text_column: str | None = None,
    second_text_column: str | None = None,
    label_column: str | None = None,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> tuple[DatasetDict, TextColumns]:
    """A labelled text data set with the splits train, validation and test, its label a ClassLabel, and its columns' names.

    It is a Hub id or folder, "vader-movie-reviews" (embedded, see `vader`), or csv, json(l) or parquet files. Columns not given are found
    by name, or as the only one of their type. Labels are a ClassLabel, names (sorted), booleans, or 0, 1, ... without a gap. A missing
    validation split is drawn from train; validation stands in for a test split that is missing or has all its labels -1. Both are logged.

    Raises:
        ValueError: no source or two, no train split, an unknown column, an empty split, a missing text, or a label that train has not.
        FileNotFoundError: a file or folder is not there. `datasets.load_dataset` may raise others.
    """
    files = {split: file for split, file in zip(SPLITS, (train_file, validation_file, test_file), strict=True) if file is not None}
    if (name_or_path is None) == (not files):
        raise ValueError(f"expected either name_or_path or files, got {name_or_path!r} and {files}.")
    if name_or_path is None:
        found = {split: _read(file) for split, file in files.items()}
    else:
        found = movie_reviews(seed) if name_or_path == EMBEDDED else load_dataset(name_or_path, config_name, revision=revision)
    dataset = DatasetDict({split: found[name] for split, names in SPLITS.items() for name in names if name in found})
    if "train" not in dataset:
        raise ValueError(f"load_text_dataset: expected a split 'train' (or a train_file), found {list(found)}.")
    columns = _columns(dataset["train"], text_column, second_text_column, label_column)
    for split, rows in dataset.items():
        _check(split, rows, columns)
    dataset = _with_all_splits(_with_class_labels(dataset, columns.label), validation_fraction, seed)
    limits = {"train": max_train_samples, "validation": max_eval_samples, "test": max_eval_samples}
    return DatasetDict({split: _sample(rows, limits[split], seed) for split, rows in dataset.items()}), columns


def tokenize(dataset: DatasetDict, tokenizer: PreTrainedTokenizerBase, columns: TextColumns, max_length: int | None = None) -> DatasetDict:
    """What a sequence classifier takes: lists `input_ids`, `attention_mask` (and `token_type_ids`) per row, unpadded, and `labels`.

    Rows longer than the smaller of `max_length` and `tokenizer.model_max_length` are truncated; how many of each split is logged. Raises
    ValueError if a split is empty, the length leaves no room for text, or there is none.
    """
    limit = tokenizer.model_max_length if max_length is None else min(max_length, tokenizer.model_max_length)
    special = tokenizer.num_special_tokens_to_add(pair=columns.second_text is not None)
    if not special < limit < LARGE_INTEGER:
        raise ValueError(f"max_length={max_length}: expected more than {special} (special tokens), and a number if the tokenizer has no limit.")
    texts = [column for column in (columns.text, columns.second_text) if column]

    def encode(batch: dict[str, list]) -> dict[str, list]:
        encoded = dict(tokenizer(*(batch[column] for column in texts), truncation=True, max_length=limit))
        full = [i for i, ids in enumerate(encoded["input_ids"]) if len(ids) == limit]
        whole = tokenizer(*([batch[column][i] for i in full] for column in texts), verbose=False)["input_ids"] if full else []
        longer = {i for i, ids in zip(full, whole, strict=True) if len(ids) > limit}
        return {**encoded, "truncated": [i in longer for i in range(len(encoded["input_ids"]))]}

    tokenized, truncated = DatasetDict(), {}
    for split, rows in dataset.items():
        _check(split, rows, columns)
        kept = rows.select_columns([*texts, columns.label]).rename_columns({columns.label: "labels"})
        encoded = kept.map(encode, batched=True, remove_columns=texts, desc=f"Tokenizing {split}")
        truncated[split] = sum(encoded["truncated"])
        tokenized[split] = encoded.remove_columns("truncated")
    counts = ", ".join(f"{count} of {len(tokenized[split])} in {split}" for split, count in truncated.items())
    logger.log(logging.WARNING if any(truncated.values()) else logging.INFO, f"Rows truncated to {limit} tokens: {counts}.")
    return tokenized
