"""One split of any data set, whole or streamed, for a model that is trained: its rows, its columns, and its labels in the model's numbers."""

from collections.abc import Callable
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, IterableDataset, load_dataset
from datasets.exceptions import DatasetGenerationError
from transformers import PreTrainedConfig

from bcos_hf.models.bcos_class_names import class_names

from . import images, text
from .images import IMAGE_NAMES, ImageColumns, holds_pictures, load_embedded
from .splits import LABEL_NAMES, find_column
from .text import READERS, TEXT_NAMES, TextColumns
from .vader import movie_reviews


def load_split(
    name_or_path: str, split: str = "test", config_name: str | None = None, revision: str | None = None, streaming: bool = False, seed: int = 0
) -> Dataset | IterableDataset:
    """The rows of one split of a Hub data set, a folder, "cifar10" or "vader-movie-reviews" (embedded), or of a csv, json(l) or parquet file, which has none.

    Raises:
        ValueError: there is no such split, or the file cannot be read. `datasets.load_dataset` may raise others.
    """
    if name_or_path in (images.EMBEDDED, text.EMBEDDED):
        found = load_embedded(streaming, seed) if name_or_path == images.EMBEDDED else movie_reviews(seed)
        if split not in found:
            raise ValueError(f"{name_or_path}: expected a split of {list(found)}, got {split!r}.")
        return found[split]
    read = READERS.get(Path(name_or_path).suffix.lower())
    if read is None or Path(name_or_path).is_dir():
        return load_dataset(name_or_path, config_name, revision=revision, split=split, streaming=streaming)
    try:
        return read(name_or_path, **({"streaming": True} if streaming else {}))
    except (DatasetGenerationError, ValueError) as error:
        raise ValueError(f"{name_or_path}: could not be read: {error.__cause__ or error}") from error


def resolved(rows: Dataset | IterableDataset) -> Dataset | IterableDataset:
    """`rows` that know their columns and types; of a stream that does not, the first rows are read."""
    return rows if rows.features else rows._resolve_features()


def _is_text(feature) -> bool:
    return getattr(feature, "dtype", None) in ("string", "large_string")


def find_columns(
    features: Features, pictures: bool, input_column: str | None = None, second_text_column: str | None = None, label_column: str | None = None
) -> ImageColumns | TextColumns:
    """The columns of pictures or texts and, where there is one, of labels: as given, by name, or the only one of their type.

    Raises:
        ValueError: a column that is not there, or none of pictures or texts that can be told.
    """
    label = label_column or next((name for name in LABEL_NAMES if name in features), None)
    label = label or next((name for name, feature in features.items() if isinstance(feature, ClassLabel)), None)
    found, fits = list(features), holds_pictures if pictures else _is_text
    fitting = [name for name in found if name != label and fits(features[name])]
    given = find_column(input_column, IMAGE_NAMES if pictures else TEXT_NAMES, fitting, found, "input_column")
    named = {"input_column": given, "second_text_column": second_text_column}
    if missing := {name for name in (label, second_text_column) if name is not None} - set(found):
        raise ValueError(f"expected columns out of {found}, got {sorted(missing)}.")
    for argument, name in named.items():
        if name is not None and not fits(features[name]):
            raise ValueError(f"{argument}={name!r}: expected a column of {'pictures' if pictures else 'texts'}, found {features[name]}.")
    return ImageColumns(given, label) if pictures else TextColumns(given, second_text_column, label)


def class_numbers(feature, config: PreTrainedConfig) -> Callable[[object], int]:
    """What makes of a label of type `feature` the number of the model's class; -1 of one that is missing or hidden.

    Names are those of `config.id2label`; the numbers of a ClassLabel go by their names too, unless the model's classes have none (LABEL_0 ...).

    Raises:
        ValueError: names that the model has not; and, when called, a label that is none of the model's.
    """
    names = class_names(config)
    theirs = feature.names if isinstance(feature, ClassLabel) else names
    named = names != [f"LABEL_{number}" for number in range(config.num_labels)]
    if len(theirs) > len(names) or (named and set(theirs) - set(names)):
        raise ValueError(f"labels: expected classes out of the model's {len(names)}, {names[:10]}, got {theirs[:10]}. Rename them in the data set or config.")
    # two classes of one name are told apart by their order alone
    table = [names.index(name) for name in theirs] if named and theirs != names else list(range(len(theirs)))
    # numbers without names are those of the configuration, which may start anywhere and have gaps
    keys = sorted(config.id2label)
    numbers = range(len(table)) if isinstance(feature, ClassLabel) or keys == list(range(len(keys))) else keys

    def number(value) -> int:
        if value is None or value == -1:
            return -1
        if isinstance(value, str) and value in names:
            return names.index(value)
        if isinstance(value, str) or value != int(value) or int(value) not in numbers:
            known = f"a number of {numbers[:10]}" if isinstance(numbers, list) else f"a number from 0 to {len(table) - 1}"
            raise ValueError(f"label: expected one of the model's {names[:10]} or {known}, got {value!r}.")
        return table[numbers.index(int(value))]

    return number
