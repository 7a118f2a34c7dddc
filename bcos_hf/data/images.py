"""A labelled picture data set as train, validation and test, whole or streamed: from the Hub, a folder, parquet files or the embedded CIFAR-10."""

import glob
from dataclasses import astuple, dataclass
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Image, IterableDataset, IterableDatasetDict, load_dataset
from datasets.exceptions import DatasetGenerationError
from transformers.utils import logging

from .splits import LABEL_NAMES, SPLITS, find_column, find_splits, sample, with_all_splits, with_class_labels


logger = logging.get_logger(__name__)

EMBEDDED = "cifar10"
IMAGE_NAMES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "pixel_values")


@dataclass(frozen=True)
class ImageColumns:
    """The names of the columns that hold the picture and, where there are any, the label and the caption."""

    image: str
    label: str | None
    caption: str | None = None

    @property
    def names(self) -> list[str]:
        """Those that there are."""
        return [name for name in astuple(self) if name is not None]


def read_parquet(file: str | Path, streaming: bool = False) -> Dataset | IterableDataset:
    """The rows of a parquet file, or of all that a pattern matches; raises a ValueError for another file, or a damaged one."""
    files = sorted(glob.glob(str(file))) or [str(file)]
    if wrong := [name for name in files if not name.lower().endswith(".parquet")]:
        raise ValueError(f"{wrong[0]}: expected a parquet file. A folder of picture files, a subfolder per class, is given as the data set's name.")
    try:
        return Dataset.from_parquet(files, **({"streaming": True} if streaming else {}))
    except (DatasetGenerationError, ValueError) as error:
        raise ValueError(f"{file}: could not be read: {error.__cause__ or error}") from error


def _load(name: str, config_name: str | None, revision: str | None, streaming: bool, seed: int):
    if name != EMBEDDED:
        return load_dataset(name, config_name, revision=revision, streaming=streaming)
    return load_embedded(streaming, seed)


def load_embedded(streaming: bool, seed: int) -> dict[str, Dataset | IterableDataset]:
    """CIFAR-10 as train (45,000), validation (5,000) and test (10,000)."""
    from .cifar10 import cifar10  # here, as it is not often wanted

    found = cifar10(seed=seed, validation=5000)
    return {split: rows.to_iterable_dataset() for split, rows in found.items()} if streaming else found


def holds_pictures(feature) -> bool:
    """Whether a column of this type can be one of pictures."""
    # Image, bytes, or what Image is in a parquet file of another writer
    return isinstance(feature, Image) or getattr(feature, "dtype", None) in ("binary", "large_binary") or (isinstance(feature, dict) and "bytes" in feature)


def _columns(train: Dataset | IterableDataset, image: str | None, label: str | None) -> ImageColumns:
    features = train.features
    pictures = [name for name, feature in features.items() if holds_pictures(feature)]
    others = [name for name in features if name not in pictures]
    if not pictures or not others:
        raise ValueError(f"train: expected a column of pictures and one of labels, found {dict(features)}.")
    label = find_column(label, LABEL_NAMES, [name for name in others if isinstance(features[name], ClassLabel)], others, "label_column")
    return ImageColumns(find_column(image, IMAGE_NAMES, pictures, pictures, "image_column"), label)


def _checked(split: str, rows: Dataset | IterableDataset, columns: ImageColumns) -> Dataset | IterableDataset:
    """`rows` with the two columns alone, the pictures typed as such."""
    if missing := set(columns.names) - set(rows.features):
        raise ValueError(f"{split}: expected the columns {sorted(missing)} as in train, found {list(rows.features)}.")
    if isinstance(rows, Dataset):
        if not len(rows):
            raise ValueError(f"{split}: expected at least one row, found none.")
        if empty := rows.data.column(columns.image).null_count:
            raise ValueError(f"{split}: expected a picture in every row, found {empty} of {len(rows)} rows without one in {columns.image!r}.")
    rows = rows.select_columns(columns.names)
    return rows if isinstance(rows.features[columns.image], Image) else rows.cast_column(columns.image, Image())


def _checked_streams(dataset: dict[str, IterableDataset], label: str) -> dict[str, IterableDataset]:
    """Streams are not read through, so their labels must be known beforehand; those of a row that are wrong, a loss refuses."""
    names = dataset["train"].features[label]
    for split, rows in dataset.items():
        if not isinstance(rows.features[label], ClassLabel) or rows.features[label].names != names.names:
            raise ValueError(f"{split}: expected a ClassLabel as labels of a stream, the same in all splits, found {rows.features[label]} in {label!r}.")
    if "validation" not in dataset:
        raise ValueError(f"expected a validation split or file, found {list(dataset)}; of a stream, none can be drawn. Give one, or set streaming=False.")
    if "test" in dataset and next(iter(dataset["test"].select_columns([label])), {label: -1})[label] in (-1, None):
        logger.warning("test: its labels are hidden, so it is left out.")
        dataset.pop("test")
    if "test" not in dataset:
        logger.warning("There is no test split: validation is used as test as well.")
    return {**dataset, "test": dataset.get("test", dataset["validation"])}


def sample_stream(rows: IterableDataset, most: int | None, seed: int, buffer: int) -> IterableDataset:
    """The first `most` rows of a stream, shuffled; None: all of it as it is."""
    if most is not None and most < 1:
        raise ValueError(f"max_train_samples, max_eval_samples: expected at least 1, got {most}.")
    # one file at a time: reading several at once ends with a pause of seconds, each time that the rows have been read
    return rows if most is None else rows.shuffle(seed=seed, buffer_size=buffer, max_buffer_input_shards=1).take(most)


def load_image_dataset(
    name_or_path: str | None,
    config_name: str | None = None,
    train_file: str | Path | None = None,
    validation_file: str | Path | None = None,
    test_file: str | Path | None = None,
    revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
    streaming: bool = False,
    shuffle_buffer: int = 1000,
) -> tuple[DatasetDict | IterableDatasetDict, ImageColumns]:
    """A labelled picture data set with the splits train, validation and test, its label a ClassLabel, and its columns' names.

    It is a Hub id, a folder of picture files (a subfolder per class, or per split and class), "cifar10" (embedded), or parquet files ("train-*.parquet" is
    all of them). Columns, labels and missing splits are treated as by `load_text_dataset`.

    With `streaming` nothing is stored locally: labels must be a ClassLabel, a validation split must be there, and train is shuffled within
    `shuffle_buffer` rows (and between files) when a model's inputs are made of it.

    Raises:
        ValueError: no source or two, no train split, an unknown column, an empty split, a missing picture, or a label that train has not.
        FileNotFoundError: a file or folder is not there. `datasets.load_dataset` may raise others.
    """
    dataset = find_splits(
        "load_image_dataset",
        name_or_path,
        (train_file, validation_file, test_file),
        lambda file: read_parquet(file, streaming),
        lambda name: _load(name, config_name, revision, streaming, seed),
    )
    if streaming:
        dataset = {split: rows if rows.features else rows._resolve_features() for split, rows in dataset.items()}
    columns = _columns(dataset["train"], image_column, label_column)
    dataset = {split: _checked(split, rows, columns) for split, rows in dataset.items()}
    limits = {"train": max_train_samples, "validation": max_eval_samples, "test": max_eval_samples}
    if streaming:
        dataset = _checked_streams(dataset, columns.label)
        return IterableDatasetDict({split: sample_stream(dataset[split], limits[split], seed, shuffle_buffer) for split in SPLITS}), columns
    dataset = with_all_splits(with_class_labels(DatasetDict(dataset), columns.label), validation_fraction, seed)
    return DatasetDict({split: sample(rows, limits[split], seed) for split, rows in dataset.items()}), columns
