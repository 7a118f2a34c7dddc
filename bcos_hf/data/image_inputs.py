"""Pictures of a data set as what a model takes, made when they are asked for: decoded, augmented where they train, and normalised by the model's processor."""

import copy
import os
import random
from collections.abc import Callable
from dataclasses import dataclass

import fsspec
import numpy as np
import torch
from datasets import Dataset, DatasetDict, Image, IterableDataset, IterableDatasetDict
from PIL import Image as Pillow
from tqdm.auto import tqdm
from transformers import AutoImageProcessor, BaseImageProcessor, PreTrainedConfig
from transformers.image_utils import SizeDict
from transformers.utils import logging

from bcos_hf.models.bcos_normalization import mean_and_std
from bcos_hf.models.bcos_processors import checked_processor, family_processor, saved_processor

from .image_files import MODES, decode
from .images import ImageColumns


logger = logging.get_logger(__name__)

BROKEN = ("raise", "skip")
LEFT_OUT = -100  # the label of a picture that was skipped; losses and measures do not count it


def channels_of(processor: BaseImageProcessor) -> int:
    """How many channels an image processor normalizes; 3 where it does not say so."""
    means = np.atleast_1d(getattr(processor, "image_mean", None) or 0.5)
    return 1 if getattr(processor, "do_normalize", False) and len(means) == 1 and not np.isscalar(processor.image_mean) else 3


def colors_of(processor: BaseImageProcessor) -> dict[str, float | list[float]]:
    """What turns pixel_values back into the colors of the image: `mean` and `std` as of `to_picture`."""
    mean, std = mean_and_std(processor, processor.do_normalize)
    return {"mean": mean.tolist(), "std": std.tolist()}


def for_channels(processor: BaseImageProcessor, channels: int) -> BaseImageProcessor:
    """`processor`; for one channel a copy that makes no three of it, and normalizes one where it was set for three that are alike."""
    if channels != 1:
        return processor
    processor = copy.deepcopy(processor)
    processor.do_convert_rgb = False
    values = [np.unique(value) for value in (processor.image_mean, processor.image_std) if value is not None]
    if processor.do_normalize and all(len(value) == 1 for value in values):
        processor.image_mean, processor.image_std = ([value.item()] for value in values)
    return processor


def resized(processor: BaseImageProcessor, size: int) -> BaseImageProcessor:
    """`processor`, from now on for square pictures of `size` pixels; where it crops, as large a part as before."""
    if not processor.size.shortest_edge:
        processor.size = SizeDict(height=size, width=size)
    elif processor.do_center_crop:
        processor.size = SizeDict(shortest_edge=round(size * processor.size.shortest_edge / processor.crop_size.height))
    else:
        processor.size = SizeDict(shortest_edge=size)
    processor.crop_size = SizeDict(height=size, width=size) if processor.do_center_crop else processor.crop_size
    return processor


def image_processor(source: str | os.PathLike, config: PreTrainedConfig, input_encoding: str = "normalized", size: int | None = None) -> BaseImageProcessor:
    """The stock image processor of a model, set for its `input_encoding` and, where given, another picture size than it was made for.

    It is the one saved in `source` (Hub id or folder); without one, that of the model's family, for pictures of 224 or `config.image_size` pixels.
    "add_inverse" takes pictures in [0, 1], so they are not normalised.
    """
    try:
        processor = saved_processor(AutoImageProcessor, source)
    except OSError:
        processor = family_processor(config)
        size = size or getattr(config, "image_size", None) or 224
        logger.warning(f"{source}: there is no image processor, so a {type(processor).__name__} for {size} pixels is used.")
    if input_encoding == "add_inverse":
        processor.do_rescale, processor.rescale_factor, processor.do_normalize = True, 1 / 255, False
    return checked_processor(processor if size is None else resized(processor, size))


def output_size(processor: BaseImageProcessor, channels: int = 3) -> tuple[int, int]:
    """Height and width of what `processor` makes. Raises a ValueError if they depend on the picture's, as batches could not be stacked."""
    checked_processor(processor)
    images = (Pillow.new(MODES[channels], size) for size in ((90, 60), (60, 90)))
    wide, high = (tuple(processor(image, return_tensors="pt")["pixel_values"].shape[-2:]) for image in images)
    if wide != high:
        raise ValueError(f"image processor: expected one size for all pictures, got {wide} for a wide and {high} for a high one. Set do_center_crop, or size.")
    return wide


@dataclass
class ImageInputs:
    """A row and its number -> what a model takes, {"pixel_values": [3, H, W], "labels": int}; a picture without a label has 0.

    Attributes:
        split: its name, for messages. augmentation: takes the place of the processor's resizing and cropping.
        broken: "raise", or "skip" to give a picture that cannot be read the label -100 and zeros, and count it.
        channels: 1 or 3, as the model takes them; None: as the processor does.
    """

    split: str
    columns: ImageColumns
    processor: BaseImageProcessor
    augmentation: Callable[[Pillow.Image], Pillow.Image] | None = None
    broken: str = "raise"
    skipped: int = 0
    without_caption: int = 0
    channels: int | None = None

    def __post_init__(self) -> None:
        if self.broken not in BROKEN:
            raise ValueError(f"broken: expected one of {BROKEN}, got {self.broken!r}.")
        self.channels = self.channels or channels_of(self.processor)
        self.zeros = torch.zeros(self.channels, *output_size(self.processor, self.channels))

    def __call__(self, row: dict, index: int) -> dict:
        """Raises a ValueError that names the row where its picture cannot be read."""
        value = row[self.columns.image] or {"bytes": b"", "path": None}
        content, where = value["bytes"], f" ({value['path']})" if value["path"] else ""
        if content is None:
            with fsspec.open(value["path"], "rb") as file:
                content = file.read()
        try:
            picture = decode(content, self.channels)
        except Exception as error:  # Pillow's decoders raise of all kinds
            return self._skip(f"{self.split}: picture {index}{where} cannot be read: {error}", error)
        if self.columns.caption is not None and not (row[self.columns.caption] or "").strip():
            self.without_caption += 1
            logger.warning(f"{self.split}: the caption of picture {index} is empty, as of {self.without_caption} so far in this process; the picture is used.")
        settings = {}
        if self.augmentation is not None:
            picture, settings = self.augmentation(picture), {"do_resize": False, "do_center_crop": False}
        try:
            pixels = self.pixels(picture, **settings)
        except ValueError as error:  # of a size that cannot be resized
            return self._skip(f"{self.split}: picture {index}{where} of {picture.size} pixels cannot be used: {error}", error)
        return {"pixel_values": pixels, "labels": 0 if self.columns.label is None else row[self.columns.label]}

    def pixels(self, image: Pillow.Image, **settings) -> torch.Tensor:
        """What the processor makes of an image, [C, H, W]."""
        # where the channels are is said, as an image that is 3 pixels high would be taken for three of them
        made = self.processor(image, return_tensors="pt", input_data_format="channels_last", **settings)
        return made["pixel_values"][0]

    def _skip(self, message: str, error: Exception) -> dict:
        if self.broken == "raise":
            raise ValueError(f"{message}. Repair or remove it, or leave such pictures out with broken='skip' (--broken_images skip).") from error
        self.skipped += 1
        logger.warning(f"{message}; left out, as {self.skipped} so far in this process.")
        return {"pixel_values": self.zeros, "labels": LEFT_OUT}


class Pictures(torch.utils.data.Dataset):
    """Rows of a `datasets.Dataset` through `ImageInputs`, each when it is asked for.

    How a picture is augmented depends on seed, epoch and row alone, so that neither workers and processes nor an interruption change what is trained on.
    """

    def __init__(self, rows: Dataset, inputs: ImageInputs, seed: int = 0) -> None:
        self.rows, self.inputs, self.seed, self.epoch = rows, inputs, seed, 0

    def __len__(self) -> int:
        return len(self.rows)

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict:
        before = random.getstate()
        random.seed(f"{self.seed} {self.epoch} {index}")
        try:
            return self.inputs(self.rows[index], index)
        finally:
            random.setstate(before)


def stacked(pictures: Pictures, desc: str = "pictures") -> tuple[torch.Tensor, torch.Tensor]:
    """All of a small data set in memory: pixel_values [M, 3, H, W] and labels [M]."""
    rows = [pictures[i] for i in tqdm(range(len(pictures)), desc=desc)]
    return torch.stack([row["pixel_values"] for row in rows]), torch.tensor([row["labels"] for row in rows])


def prepare_images(
    dataset: DatasetDict | IterableDatasetDict,
    processor: BaseImageProcessor,
    columns: ImageColumns,
    augmentation: Callable[[Pillow.Image], Pillow.Image] | None = None,
    broken: str = "raise",
    seed: int = 0,
    shuffle_buffer: int = 1000,
) -> dict[str, Pictures | IterableDataset]:
    """What an image classifier takes, `pixel_values` and `labels`, made of each row when it is asked for; `augmentation` is train's alone.

    A stream for training has no end (give Trainer max_steps): it is repeated, and shuffled within `shuffle_buffer` rows across the repetitions, so that no
    process is out of pictures before another. Raises as `ImageInputs`, at the row.
    """
    made = {}
    for split, rows in dataset.items():
        inputs = ImageInputs(split, columns, processor, augmentation if split == "train" else None, broken)
        rows = rows.cast_column(columns.image, Image(decode=False))
        if isinstance(rows, Dataset):
            made[split] = Pictures(rows, inputs, seed)
            continue
        if split == "train":
            rows = rows.repeat(None).shuffle(seed=seed, buffer_size=shuffle_buffer, max_buffer_input_shards=min(10, rows.num_shards))
        made[split] = rows.map(inputs, with_indices=True, remove_columns=columns.names)
    return made
