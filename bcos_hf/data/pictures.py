"""Pictures without labels, whole or streamed: of a Hub data set, a folder, or WebDataset shards (tar files, as CC3M is distributed)."""

import glob

from datasets import Dataset, Features, Image, IterableDataset, Value, load_dataset

from .images import EMBEDDED, IMAGE_NAMES, ImageColumns, holds_pictures, load_embedded, read_parquet, sample_stream
from .splits import find_column, sample


CAPTION_NAMES = ("caption", "txt", "text")
# what a member of a shard can be; a sample that has none of the pictures is one that cannot be read
SHARD_PICTURES = ("jpg", "jpeg", "png", "webp")
SHARD_FEATURES = Features({**{name: Image(decode=False) for name in SHARD_PICTURES}, "txt": Value("string")})


def _one_picture(row: dict) -> dict:
    return {"image": next((row[name] for name in SHARD_PICTURES if row[name] is not None), None), "caption": row["txt"]}


def _shards(pattern: str, streaming: bool) -> Dataset | IterableDataset:
    files = [file for part in pattern.split() for file in (sorted(glob.glob(part)) or [part])]
    rows = load_dataset("webdataset", data_files={"train": files}, split="train", streaming=streaming, features=SHARD_FEATURES)
    return rows.map(_one_picture, remove_columns=list(SHARD_FEATURES), features=Features({"image": Image(decode=False), "caption": Value("string")}))


def load_pictures(
    name_or_path: str | None = None, shards: str | None = None, config_name: str | None = None, revision: str | None = None, split: str = "train",
    image_column: str | None = None, max_samples: int | None = None, seed: int = 0, streaming: bool = False, shuffle_buffer: int = 1000,
) -> tuple[Dataset | IterableDataset, ImageColumns]:  # fmt: skip
    """The pictures of one split, and the names of their column and of that of captions, if there is one.

    Args:
        name_or_path: a Hub id, a folder of pictures, a parquet file (or a pattern of some), or "cifar10" (embedded).
        shards: paths or patterns of tar files, separated by blanks, in its place.
        streaming: store nothing locally; files are divided between processes and workers.

    Raises:
        ValueError: both sources or none, no column of pictures. `datasets.load_dataset` may raise others.
    """
    if (name_or_path is None) == (shards is None):
        raise ValueError(f"load_pictures: expected a data set's name or folder, or shards, one of them; got {name_or_path!r} and {shards!r}.")
    if shards is not None:
        rows = _shards(shards, streaming)
    elif str(name_or_path).endswith(".parquet"):
        rows = read_parquet(name_or_path, streaming)
    elif name_or_path == EMBEDDED:
        rows = load_embedded(streaming, seed)[split]
    else:
        rows = load_dataset(name_or_path, config_name, revision=revision, split=split, streaming=streaming)
    if isinstance(rows, IterableDataset) and not rows.features:
        rows = rows._resolve_features()
    pictures = [name for name, feature in rows.features.items() if holds_pictures(feature)]
    if not pictures:
        raise ValueError(f"{name_or_path or shards}: expected a column of pictures, found {dict(rows.features)}.")
    caption = next((name for name in CAPTION_NAMES if name in rows.features), None)
    columns = ImageColumns(find_column(image_column, IMAGE_NAMES, pictures, pictures, "image_column"), None, caption)
    rows = rows.select_columns([name for name in (columns.image, caption) if name])
    return (sample_stream(rows, max_samples, seed, shuffle_buffer) if streaming else sample(rows, max_samples, seed)), columns
