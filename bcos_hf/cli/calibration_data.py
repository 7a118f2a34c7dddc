"""What a data set gives to a conversion: batches to calibrate with, and held-out ones that measure it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel

from bcos_hf.calibration.inputs import normalization
from bcos_hf.calibration.rows import RowReader, draw
from bcos_hf.data import find_columns, load_split
from bcos_hf.data.image_inputs import image_processor
from bcos_hf.data.images import ImageColumns
from bcos_hf.data.one_split import class_numbers
from bcos_hf.data.pictures import CAPTION_NAMES
from bcos_hf.data.text import TextColumns
from bcos_hf.metrics.agreement import masked_tokens
from bcos_hf.models.bcos_processors import saved_processor


HELD_OUT = 500


@dataclass
class Calibration:
    """What a data set gives to a conversion.

    Attributes:
        batches: to calibrate with.
        held_out: others, with the numbers of their classes, None where there are none.
        about: where they come from, for the record of the conversion.
        skipped: rows that could not be read.
        processor: of images, as the twin takes them.
        to_standard: the twin's pixel_values -> the standard model's; None: they are the same.
        mask: id of the mask token.
        without: why no accuracy is measured, '' where one is, or where there are no labels.
    """

    batches: list[dict[str, Tensor]]
    held_out: list[tuple[dict[str, Tensor], Tensor | None]]
    about: dict
    skipped: int
    processor: object
    to_standard: Callable[[Tensor], Tensor] | None
    mask: int | None
    without: str


@dataclass(frozen=True)
class Columns:
    """Names of columns as they were given; None: to be found."""

    input: str | None = None
    second: str | None = None
    label: str | None = None


def calibration_of(
    source: str,
    standard: PreTrainedModel,
    dataset: str,
    split: str,
    samples: int,
    seed: int,
    encoding: str | None,
    given: Columns,
) -> Calibration:
    """The rows of a data set as batches for the twin.

    Args:
        source: Hub id or folder of the standard model, with its tokenizer or image processor.
        dataset, split: as of `load_split`. samples: to calibrate with, at most; up to 500 others are held out.
        encoding: the twin's input_encoding; None: not "add_inverse".

    Raises:
        ValueError: no column of inputs, labels that were asked for and are none of the model's, or too few rows.
    """
    rows = load_split(dataset, split, seed=seed)
    columns = _columns(rows, dataset, standard, given)
    number, without = _numbers(rows, columns.label, given.label, standard.config)
    tokenizer = processor = to_standard = None
    if isinstance(columns, ImageColumns):
        processor, to_standard = _image_processors(source, standard, encoding)
    if isinstance(columns, TextColumns) or columns.caption is not None:
        tokenizer = saved_processor(AutoTokenizer, source)
    reader = RowReader(standard, tokenizer, processor, columns, () if number is None else (columns.label,))
    fitted, others = draw(rows, samples, HELD_OUT, seed)
    batches = [inputs for inputs, _ in reader.batches(fitted)]
    mask = None if tokenizer is None else tokenizer.mask_token_id
    if mask is not None and type(standard).__name__.endswith("ForMaskedLM"):  # which is used on masked texts
        generator = torch.Generator().manual_seed(seed)
        batches = [masked_tokens(inputs, mask, generator)[0] for inputs in batches]
    held_out = [
        (inputs, None if number is None else torch.tensor([number(row[columns.label]) for row in kept]))
        for inputs, kept in reader.batches(others)
    ]
    name = Path(dataset).name if Path(dataset).exists() else dataset
    about = {"source": name, "split": split, "seed": seed}
    return Calibration(batches, held_out, about, reader.skipped, processor, to_standard, mask, without)


def _columns(rows: Dataset, dataset: str, standard: PreTrainedModel, given: Columns) -> ImageColumns | TextColumns:
    """Those of texts, of images, or of images and captions, as the model takes them."""
    zero_shot = hasattr(standard.config, "text_config") and hasattr(standard.config, "vision_config")
    if not zero_shot:
        images = standard.main_input_name == "pixel_values"
        return find_columns(rows.features, images, given.input, None if images else given.second, given.label)
    found = find_columns(rows.features, True, given.input, None, given.label)
    caption = given.second or next((name for name in CAPTION_NAMES if name in rows.features), None)
    if caption not in rows.features:
        raise ValueError(
            f"{dataset}: expected a column of captions beside the images, found {list(rows.features)}. "
            "Name it with --second-text-column."
        )
    return replace(found, caption=caption)


def _image_processors(source: str, standard: PreTrainedModel, encoding: str | None) -> tuple:
    """The processor of the twin's images, and what makes the standard model's of them, None where they are the same."""
    config = getattr(standard.config, "vision_config", standard.config)
    processor = image_processor(source, config, encoding or "normalized")
    if encoding != "add_inverse":
        return processor, None
    own = image_processor(source, config)
    mean, std = (value.view(-1, 1, 1) for value in normalization(own, own.do_normalize))
    return processor, lambda pixels: (pixels - mean.to(pixels)) / std.to(pixels)


def _numbers(rows: Dataset, label: str | None, given: str | None, config: PreTrainedConfig) -> tuple:
    """What makes of a label the number of its class, None where no accuracy can be measured; and why that is.

    Labels that were found and not asked for may be those of another task: then they are passed over.
    """
    classifies = (config.architectures or [""])[0].endswith(("ForSequenceClassification", "ForImageClassification"))
    if label is None or not classifies:
        return None, ""
    try:
        number = class_numbers(rows.features[label], config)
        names = getattr(rows.features[label], "names", None)
        if names is not None and len(names) != config.num_labels and given is None:
            raise ValueError(f"labels: expected {config.num_labels} classes, as the model has, got {len(names)}.")
        for value in rows.unique(label):
            number(value)
    except (ValueError, TypeError) as error:
        if given is not None:
            raise ValueError(f"--label-column: {error}") from error
        return None, f"No accuracy: the labels in {label!r} are not the model's ({error})"
    return number, ""
