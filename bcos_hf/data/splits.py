"""What every labelled data set needs, of texts or of pictures: its splits and columns found, its labels as classes, missing splits made, subsets drawn."""

from collections.abc import Callable, Sequence
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict
from transformers.utils import logging


logger = logging.get_logger(__name__)

# split -> its names; the last one found is taken
SPLITS = {"train": ["train"], "validation": ["validation_matched", "dev", "val", "valid", "validation"], "test": ["test_matched", "test"]}
LABEL_NAMES = ("label", "labels", "coarse_label", "sentiment", "target", "class", "category")


def find_column(given: str | None, names: Sequence[str], fallback: list[str], found: list[str], argument: str) -> str:
    """The column `given`; else the one called as in `names`; else the only one of `fallback`. A ValueError where none is known."""
    if given is not None and given not in found:
        raise ValueError(f"{argument}={given!r}: expected one of the columns {found}.")
    by_name = {column.lower(): column for column in found}
    known = [by_name[name] for name in names if name in by_name] or (fallback if len(fallback) == 1 else [])
    if given is None and not known:
        raise ValueError(f"None of the columns {found} is known by its name or its type. Say which one with {argument}.")
    return given or known[0]


def is_text(dataset: Dataset, column: str) -> bool:
    """Whether a column holds strings."""
    return getattr(dataset.features[column], "dtype", None) in ("string", "large_string")


def find_splits(caller: str, name_or_path: str | None, files: Sequence[str | Path | None], read: Callable, load: Callable) -> dict:
    """Split -> rows of those that are there, from the data set `load(name_or_path)` or from `read(file)` of the train, validation and test files given.

    Raises:
        ValueError: no source or two, or no train split.
    """
    given = {split: file for split, file in zip(SPLITS, files, strict=True) if file is not None}
    if (name_or_path is None) == (not given):
        raise ValueError(f"expected either name_or_path or files, got {name_or_path!r} and {given}.")
    found = load(name_or_path) if name_or_path is not None else {split: read(file) for split, file in given.items()}
    dataset = {split: found[name] for split, names in SPLITS.items() for name in names if name in found}
    if "train" not in dataset:
        raise ValueError(f"{caller}: expected a split 'train' (or a train_file), found {list(found)}.")
    return dataset


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


def label_fields(names: Sequence[str]) -> dict[str, dict]:
    """The names of the classes as fields of a model's configuration."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def with_class_labels(dataset: DatasetDict, label: str) -> DatasetDict:
    """`dataset` with its labels as a ClassLabel; a test split whose labels are hidden is left out. A ValueError for a label that train has not."""
    names = _class_names(dataset["train"], label)
    if "test" in dataset and dataset["test"].unique(label) == [-1]:
        logger.warning("test: its labels are hidden (all are -1), so it is left out.")
        dataset = DatasetDict({split: rows for split, rows in dataset.items() if split != "test"})
    allowed = names if is_text(dataset["train"], label) else range(len(names))
    for split, rows in dataset.items():
        if getattr(rows.features[label], "names", names) != names:
            raise ValueError(f"{split}: expected the class names {names} as in train, found {rows.features[label].names}.")
        if unknown := [value for value in rows.unique(label) if value not in allowed]:
            raise ValueError(f"{split}: expected labels out of {list(allowed)[:20]} as in train, found {unknown[:20]} in {label!r}.")
    return dataset.cast_column(label, ClassLabel(names=names))


def with_all_splits(dataset: DatasetDict, fraction: float, seed: int) -> DatasetDict:
    """`dataset` with a validation split, drawn from train if there is none, and a test split, for which validation stands in; both are logged."""
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


def sample(rows: Dataset, most: int | None, seed: int) -> Dataset:
    """At most `most` rows, drawn with `seed`; all in their order where there are no more."""
    if most is not None and most < 1:
        raise ValueError(f"max_train_samples, max_eval_samples: expected at least 1, got {most}.")
    return rows if most is None or most >= len(rows) else rows.shuffle(seed=seed).select(range(most))
