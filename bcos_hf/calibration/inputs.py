"""Calibration inputs as batches that a model takes: texts, images, tensors or batches, checked before all else."""

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from bcos_hf.data.image_files import upright
from bcos_hf.data.image_inputs import for_channels, image_processor
from bcos_hf.models.bcos_normalization import normalization
from bcos_hf.models.bcos_processors import checked_processor, image_channels, saved_processor
from bcos_hf.models.bcos_text import positions_of


TEXT_BATCH, IMAGE_BATCH = 32, 32
LONGEST = 512  # tokens of a text
FEW_NAMES = 10  # texts that are only so many different ones, each ten times or more, are taken for labels
WAYS = "texts (with a tokenizer), images (with an image processor), tensors, or batches that the model takes"


def calibration_batches(
    model: PreTrainedModel, inputs: Iterable, processor=None, source: str | os.PathLike | None = None
) -> tuple[list[dict[str, Tensor]], tuple[Tensor, Tensor] | None]:
    """Batches for `refit_`; and the mean and deviation, [C] each, that the standard model's images are normalized with.

    The latter are None where no image processor says them.

    Args:
        model: the B-cos twin, which says what is taken.
        inputs: texts; PIL images; float tensors [N, C, H, W] or token ids [N, L]; or batches, dicts of such tensors.
            Labels in batches are ignored. A generator or a data set's column will do; images are read 32 at a time.
        processor: tokenizer, image processor, or both in one; None: the one saved in `source`, a Hub id or folder.

    Raises:
        ValueError: no input at all, inputs of another modality, labels in their place, or values that are not finite.
        TypeError: something that is no iterable of inputs.
    """
    if isinstance(inputs, str | bytes | Mapping | Tensor) or not isinstance(inputs, Iterable):
        raise TypeError(f"calibration: expected an iterable of {WAYS}, got a single {type(inputs).__name__}.")
    iterator = iter(inputs)
    head = list(islice(iterator, 1))
    if not head:
        raise ValueError(f"calibration: expected {WAYS}; got none. Some hundreds are usual.")
    first, items = head[0], _of_one_kind(chain(head, iterator))
    zero_shot = getattr(model, "zero_shot", False)
    both = zero_shot and model.config.convert_text  # else the text tower stays as it is, and images alone are enough
    images = zero_shot or model.main_input_name == "pixel_values"
    own = _own_processor(model, processor, source, images)
    if isinstance(first, str):
        _require(not images, "images" if not both else "batches of images with texts", "texts")
        batches = _text_batches(model, list(items), own)
    elif isinstance(first, Image.Image):
        _require(images and not both, "texts" if not images else "batches of images with texts", "images")
        batches = _image_batches(items, own, model)
    elif isinstance(first, Tensor):
        batches = [{_name_of(item, images): item} for item in items]
    elif isinstance(first, Mapping):
        batches = [_tensors(item) for item in items]
    else:
        got = f"{type(first).__name__}, {first!r:.60}"
        raise ValueError(
            f"calibration: expected {WAYS}; got {got}. Labels are not needed; "
            "of a data set give the column of its inputs."
        )
    for batch in batches:
        _check(batch, model, images, both)
    return batches, _pixels(own, given=processor is not None)


def _of_one_kind(items: Iterator) -> Iterator:
    """`items`, as long as all are texts, or all images, ..."""
    kinds = (str, Image.Image, Tensor, Mapping)
    kind = None
    for number, item in enumerate(items):
        found = next((known for known in kinds if isinstance(item, known)), type(item))
        kind = kind or found
        if found is not kind:
            got = "without a value" if item is None else f"of {type(item).__name__}"
            raise ValueError(
                f"calibration: expected inputs of one kind, {kind.__name__}; number {number} is {got}. Leave it out."
            )
        yield item


def _require(right: bool, wanted: str, got: str) -> None:
    if not right:
        raise ValueError(f"calibration: expected {wanted}, which the model takes, got {got}.")


def _own_processor(model: PreTrainedModel, processor, source, images: bool):
    """The part of `processor` for the model's modality, or the one saved in `source`; None where there is none."""
    if processor is not None:
        return getattr(processor, "image_processor" if images else "tokenizer", processor)
    if source is None:
        return None
    if images:
        return image_processor(source, getattr(model.config, "vision_config", model.config))
    try:
        return saved_processor(AutoTokenizer, source)
    except OSError:
        return None


def _text_batches(model: PreTrainedModel, texts: list[str], tokenizer) -> list[dict[str, Tensor]]:
    if tokenizer is None:
        raise ValueError(
            "processor: expected the model's tokenizer, to read texts with, got none and found none beside the model."
        )
    if not hasattr(tokenizer, "model_max_length"):
        raise ValueError(f"processor: expected a tokenizer, to read texts with, got a {type(tokenizer).__name__}.")
    different = sorted(set(texts))
    if len(different) <= min(FEW_NAMES, len(texts) // 10):
        raise ValueError(
            f"calibration: expected texts, got {len(texts)} of which only {len(different)} differ, {different[:3]}. "
            "Are they labels?"
        )
    longest = min(LONGEST, tokenizer.model_max_length, positions_of(model.base_model))
    encoded = [tokenizer(text, truncation=True, max_length=longest) for text in texts]
    encoded = sorted(
        (row for row in encoded if len(row["input_ids"])), key=lambda row: len(row["input_ids"])
    )  # little padding
    if not encoded:
        raise ValueError("calibration: expected texts, got only empty ones.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return [
        dict(tokenizer.pad(encoded[i : i + TEXT_BATCH], padding_side="right", return_tensors="pt"))
        for i in range(0, len(encoded), TEXT_BATCH)
    ]


def _image_batches(images: Iterator[Image.Image], processor, model: PreTrainedModel) -> list[dict[str, Tensor]]:
    if processor is None:
        raise ValueError(
            "processor: expected the model's image processor, to read images with, got none and found none beside "
            "the model."
        )
    if not hasattr(processor, "do_normalize"):
        raise ValueError(
            f"processor: expected an image processor, to read images with, got a {type(processor).__name__}."
        )
    checked_processor(processor)
    if getattr(model.config, "input_encoding", "none") == "add_inverse":
        unnormalized = {"do_normalize": False, "do_rescale": True, "rescale_factor": 1 / 255}
        processor = type(processor).from_dict({**processor.to_dict(), **unnormalized})
    channels = image_channels(model.config)
    processor, batches = for_channels(processor, channels), []
    while some := list(islice(images, IMAGE_BATCH)):
        made = [processor(upright(image, channels), return_tensors="pt")["pixel_values"] for image in some]
        sizes = sorted({tuple(pixels.shape[-2:]) for pixels in made})
        if len(sizes) > 1:
            raise ValueError(
                f"calibration: expected an image processor that makes images of one size, got {sizes[:3]}. "
                "Set do_center_crop, or size."
            )
        batches.append({"pixel_values": torch.cat(made)})
    return batches


def _name_of(item: Tensor, images: bool) -> str:
    if item.dim() == 4 and item.is_floating_point():
        _require(images, "token ids [N, L]", f"a tensor {list(item.shape)} of {item.dtype}")
        return "pixel_values"
    if item.dim() == 2 and not item.is_floating_point():
        _require(not images, "pixel_values [N, C, H, W]", f"a tensor {list(item.shape)} of {item.dtype}")
        return "input_ids"
    wanted = "tensors [N, C, H, W] of floats" if images else "tensors [N, L] of token ids"
    hint = " Convert images with the image processor." if item.dtype == torch.uint8 else ""
    raise ValueError(f"calibration: expected {wanted}; got {list(item.shape)} of {item.dtype}.{hint}")


def _tensors(batch: Mapping) -> dict[str, Tensor]:
    """The tensors of a batch, its labels left out."""
    kept = {name: value for name, value in batch.items() if isinstance(value, Tensor) and "label" not in name}
    if not kept:
        got = {name: type(value).__name__ for name, value in batch.items()}
        raise ValueError(
            f"calibration: expected batches of tensors, got {got}. Of a data set give the column of its inputs."
        )
    return kept


def _check(batch: dict[str, Tensor], model: PreTrainedModel, images: bool, both: bool) -> None:
    needed = ("pixel_values",) if images else ("input_ids", "inputs_embeds")
    if not any(name in batch for name in needed) or (both and "input_ids" not in batch):
        wanted = "pixel_values and input_ids" if both else needed[0]
        raise ValueError(f"calibration: expected {wanted} in each batch, got {sorted(batch)}.")
    if any(0 in value.shape for value in batch.values()):
        shapes = {name: list(value.shape) for name, value in batch.items()}
        raise ValueError(f"calibration: expected inputs in each batch, got {shapes}.")
    if any(value.is_floating_point() and not value.isfinite().all() for value in batch.values()):
        raise ValueError("calibration: expected finite values, got some that are not. Look for NaN in the inputs.")
    if "input_ids" in batch:
        _check_ids(batch["input_ids"], model)
    if "pixel_values" in batch:
        _check_pixels(batch["pixel_values"], model)


def _check_ids(ids: Tensor, model: PreTrainedModel) -> None:
    if ids.dim() != 2 or ids.is_floating_point():
        raise ValueError(
            f"calibration: expected input_ids [N, L] of whole numbers, got {list(ids.shape)} of {ids.dtype}."
        )
    words = getattr(getattr(model.config, "text_config", model.config), "vocab_size", None)
    if words is not None and (ids.min() < 0 or ids.max() >= words):
        raise ValueError(
            f"calibration: expected token ids from 0 to {words - 1}, got {ids.min().item()} to {ids.max().item()}."
        )


def _check_pixels(pixels: Tensor, model: PreTrainedModel) -> None:
    channels = image_channels(model.config)
    if pixels.dim() != 4 or not pixels.is_floating_point() or pixels.shape[1] != channels:
        shape = f"[N, {channels}, H, W] of floats"
        raise ValueError(
            f"calibration: expected pixel_values {shape}, got {list(pixels.shape)} of {pixels.dtype}. "
            "Convert images with the image processor."
        )
    low, high = (value.item() for value in pixels.aminmax())
    if getattr(model.config, "input_encoding", "none") == "add_inverse" and not 0 <= low <= high <= 1:
        raise ValueError(
            f"calibration: input_encoding='add_inverse' expects pixel_values from 0 to 1, got {low:.3g} to {high:.3g}. "
            "Set do_normalize=False."
        )


def _pixels(processor, given: bool) -> tuple[Tensor, Tensor] | None:
    """`normalization` of the standard model's processor; None where there is none that says it.

    One that is given may have been set for images in [0, 1] already: its mean and deviation count all the same.
    """
    if getattr(processor, "image_mean", None) is None or getattr(processor, "image_std", None) is None:
        return None
    return normalization(processor, normalizes=True if given else processor.do_normalize)
