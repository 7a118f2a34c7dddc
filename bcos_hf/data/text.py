"""A labelled text data set as train, validation and test, and as what a model takes: from the Hub, local files or the embedded reviews."""

from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, load_dataset
from datasets.exceptions import DatasetGenerationError
from transformers import PreTrainedTokenizerBase
from transformers.tokenization_utils_base import LARGE_INTEGER
from transformers.utils import logging

from .splits import LABEL_NAMES, find_column, find_splits, is_text, sample, with_all_splits, with_class_labels
from .vader import movie_reviews


logger = logging.get_logger(__name__)

EMBEDDED = "vader-movie-reviews"
# not load_dataset, which tells the Hub about local files too; in a csv file "null" and "NA" are words
READERS = {".csv": partial(Dataset.from_csv, keep_default_na=False, na_values=[""]), ".parquet": Dataset.from_parquet}
READERS |= {".json": Dataset.from_json, ".jsonl": Dataset.from_json, ".txt": Dataset.from_text}
TEXT_NAMES = ("text", "sentence", "content", "review", "document", "comment", "review_body")


@dataclass(frozen=True)
class TextColumns:
    """The names of the columns that hold the text, the second text of a pair (None: single texts) and the label (None: there is none)."""

    text: str
    second_text: str | None
    label: str | None


def read_rows(file: str | Path) -> Dataset:
    """The rows of a local file, by how its name ends. Raises a ValueError for one that cannot be read."""
    if Path(file).suffix.lower() not in READERS:
        raise ValueError(f"{file}: expected a file that ends in one of {', '.join(READERS)}.")
    try:
        return READERS[Path(file).suffix.lower()](str(file))
    except (DatasetGenerationError, ValueError) as error:
        raise ValueError(f"{file}: could not be read: {error.__cause__ or error}") from error


def _columns(train: Dataset, text: str | None, second_text: str | None, label: str | None) -> TextColumns:
    found = train.column_names
    label = find_column(label, LABEL_NAMES, [c for c in found if isinstance(train.features[c], ClassLabel)], found, "label_column")
    others = [c for c in found if c != label]
    text = find_column(text, TEXT_NAMES, [c for c in others if is_text(train, c)], others, "text_column")
    return TextColumns(text, second_text and find_column(second_text, (), [], others, "second_text_column"), label)


def _check(split: str, rows: Dataset, columns: TextColumns) -> None:
    if not len(rows):
        raise ValueError(f"{split}: expected at least one row, found none.")
    if missing := {column for column in astuple(columns) if column} - set(rows.column_names):
        raise ValueError(f"{split}: expected the columns {sorted(missing)} as in train, found {rows.column_names}.")
    for column in filter(None, (columns.text, columns.second_text)):
        if not is_text(rows, column):
            raise ValueError(f"{split}: expected strings in {column!r}, found {rows.features[column]}. Choose a column with text_column.")
        if empty := rows.data.column(column).null_count:
            raise ValueError(f"{split}: expected a text in every row, found {empty} of {len(rows)} rows without one in {column!r}.")


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
    dataset = find_splits(
        "load_text_dataset",
        name_or_path,
        (train_file, validation_file, test_file),
        read_rows,
        lambda name: movie_reviews(seed) if name == EMBEDDED else load_dataset(name, config_name, revision=revision),
    )
    columns = _columns(dataset["train"], text_column, second_text_column, label_column)
    for split, rows in dataset.items():
        _check(split, rows, columns)
    dataset = with_all_splits(with_class_labels(DatasetDict(dataset), columns.label), validation_fraction, seed)
    limits = {"train": max_train_samples, "validation": max_eval_samples, "test": max_eval_samples}
    return DatasetDict({split: sample(rows, limits[split], seed) for split, rows in dataset.items()}), columns


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
