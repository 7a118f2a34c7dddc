"""Calibration inputs as batches that a model takes: texts, images, tensors or batches, checked before anything is
changed."""

import os
from collections.abc import Iterable, Mapping
from itertools import islice

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from bcos_hf.data.image_inputs import image_processor, rgb
from bcos_hf.models.bcos_text import positions_of


TEXT_BATCH, IMAGE_BATCH = 32, 32
LONGEST = 512  # tokens of a text
WAYS = "texts (with a tokenizer), images (with an image processor), tensors, or batches that the model takes"


def calibration_batches(
    model: PreTrainedModel, inputs: Iterable, processor=None, source: str | os.PathLike | None = None
) -> tuple[list[dict[str, Tensor]], tuple[Tensor, Tensor] | None]:
    """Batches for `refit_`, and the mean and deviation that the standard model's images are normalized with, [C] each,
    where that can be known.

    Args:
        model: the B-cos twin, which says what is taken.
        inputs: texts; PIL images; float tensors [N, C, H, W] or token ids [N, L]; or batches, dicts of such tensors.
            Labels in batches are ignored.
        processor: tokenizer, image processor, or both in one; None: the one saved in `source`, a Hub id or folder.

    Raises:
        ValueError: no input at all, inputs of another modality, labels in the place of inputs, or values that are not
        finite.
        TypeError: something that is no iterable of inputs.
    """
    if isinstance(inputs, str | bytes | Mapping | Tensor) or not isinstance(inputs, Iterable):
        raise TypeError(f"calibration: expected an iterable of {WAYS}, got a single {type(inputs).__name__}.")
    inputs = list(inputs)
    if not inputs:
        raise ValueError(f"calibration: expected {WAYS}; got none. Some hundreds are usual.")
    first, images = inputs[0], model.main_input_name == "pixel_values" or getattr(model, "zero_shot", False)
    if different := next(
        (item for item in inputs if type(item) is not type(first) and not isinstance(item, Image.Image)), None
    ):
        raise ValueError(
            f"calibration: expected inputs of one kind, got a {type(first).__name__} and a {type(different).__name__}."
        )
    own = _own_processor(model, processor, source, images)
    if isinstance(first, str):
        _require(not images, "images", "texts")
        batches = _text_batches(model, inputs, own)
    elif isinstance(first, Image.Image):
        _require(images, "texts", "images")
        batches = _image_batches(inputs, own, model)
    elif isinstance(first, Tensor):
        batches = [{_name_of(item, images): item} for item in inputs]
    elif isinstance(first, Mapping):
        batches = [_tensors(item) for item in inputs]
    else:
        raise ValueError(
            f"calibration: expected {WAYS}; got {first!r:.80}. Labels are not needed; of a data set give the column of its inputs."
        )
    for batch in batches:
        _check(batch, model, images)
    return batches, _pixels(own)


def _require(right: bool, wanted: str, got: str) -> None:
    if not right:
        raise ValueError(f"calibration: expected {wanted}, which the model takes, got {got}.")


def _own_processor(model: PreTrainedModel, processor, source, images: bool):
    """The part of `processor` that is for the model's modality; loaded from `source` where none is given; None where
    there is none."""
    if processor is not None:
        return getattr(processor, "image_processor" if images else "tokenizer", processor)
    if source is None:
        return None
    try:
        if images:
            return image_processor(
                source,
                getattr(model.config, "vision_config", model.config),
                getattr(model.config, "input_encoding", "normalized"),
            )
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError):
        return None


def _text_batches(model: PreTrainedModel, texts: list[str], tokenizer) -> list[dict[str, Tensor]]:
    if tokenizer is None:
        raise ValueError(
            "processor: expected the model's tokenizer, to read texts with, got none and found none beside the model."
        )
    longest = min(LONGEST, tokenizer.model_max_length, positions_of(model.base_model))
    pad = {"pad_token": tokenizer.eos_token} if tokenizer.pad_token_id is None else {}
    encoded = [tokenizer(text, truncation=True, max_length=longest) for text in texts]
    encoded = sorted(
        (row for row in encoded if len(row["input_ids"])), key=lambda row: len(row["input_ids"])
    )  # little padding
    if not encoded:
        raise ValueError("calibration: expected texts, got only empty ones.")
    if pad:
        tokenizer.pad_token = pad["pad_token"]
    return [
        dict(tokenizer.pad(encoded[i : i + TEXT_BATCH], padding_side="right", return_tensors="pt"))
        for i in range(0, len(encoded), TEXT_BATCH)
    ]


def _image_batches(images: Iterable[Image.Image], processor, model: PreTrainedModel) -> list[dict[str, Tensor]]:
    if processor is None:
        raise ValueError(
            "processor: expected the model's image processor, to read images with, got none and found none beside the model."
        )
    if getattr(model.config, "input_encoding", "none") == "add_inverse" and processor.do_normalize:
        processor = type(processor).from_dict(
            {**processor.to_dict(), "do_normalize": False, "do_rescale": True, "rescale_factor": 1 / 255}
        )
    iterator, batches = iter(images), []
    while some := list(islice(iterator, IMAGE_BATCH)):
        batches.append({"pixel_values": processor([rgb(image) for image in some], return_tensors="pt")["pixel_values"]})
    return batches


def _name_of(item: Tensor, images: bool) -> str:
    if item.dim() == 4 and item.is_floating_point():
        _require(images, "token ids [N, L]", f"a tensor {list(item.shape)} of {item.dtype}")
        return "pixel_values"
    if item.dim() == 2 and not item.is_floating_point():
        _require(not images, "pixel_values [N, C, H, W]", f"a tensor {list(item.shape)} of {item.dtype}")
        return "input_ids"
    raise ValueError(
        f"calibration: expected tensors [N, C, H, W] of floats, or [N, L] of token ids; got {list(item.shape)} of {item.dtype}."
    )


def _tensors(batch: Mapping) -> dict[str, Tensor]:
    """The tensors of a batch, its labels left out."""
    kept = {name: value for name, value in batch.items() if isinstance(value, Tensor) and "label" not in name}
    if not kept:
        got = {name: type(value).__name__ for name, value in batch.items()}
        raise ValueError(
            f"calibration: expected batches of tensors, got {got}. Of a data set give the column of its inputs."
        )
    return kept


def _check(batch: dict[str, Tensor], model: PreTrainedModel, images: bool) -> None:
    needed = ("pixel_values",) if images else ("input_ids", "inputs_embeds")
    if not any(name in batch for name in needed):
        raise ValueError(f"calibration: expected {needed[0]} in each batch, got {sorted(batch)}.")
    if any(0 in value.shape for value in batch.values()):
        raise ValueError(
            f"calibration: expected inputs in each batch, got { ({name: list(value.shape) for name, value in batch.items()}) }."
        )
    if any(value.is_floating_point() and not value.isfinite().all() for value in batch.values()):
        raise ValueError("calibration: expected finite values, got some that are not. Look for NaN in the inputs.")
    ids, words = batch.get("input_ids"), getattr(model.config, "vocab_size", None)
    if ids is not None and words is not None and (ids.min() < 0 or ids.max() >= words):
        raise ValueError(
            f"calibration: expected token ids from 0 to {words - 1}, got {ids.min().item()} to {ids.max().item()}."
        )
    pixels = batch.get("pixel_values")
    if pixels is not None and (
        pixels.dim() != 4 or not pixels.is_floating_point() or pixels.shape[1] != model.config.num_channels
    ):
        shape = f"[N, {model.config.num_channels}, H, W] of floats"
        raise ValueError(
            f"calibration: expected pixel_values {shape}, got {list(pixels.shape)} of {pixels.dtype}. Convert images with the image processor."
        )
    if (
        pixels is not None
        and getattr(model.config, "input_encoding", "none") == "add_inverse"
        and not 0 <= pixels.min() <= pixels.max() <= 1
    ):
        low, high = pixels.min().item(), pixels.max().item()
        raise ValueError(
            f"calibration: input_encoding='add_inverse' expects pixel_values from 0 to 1, got {low:.3g} to {high:.3g}. Set do_normalize=False."
        )


def _pixels(processor) -> tuple[Tensor, Tensor] | None:
    """Mean and deviation of an image processor, [C] each; None of a tokenizer."""
    if (
        processor is None
        or getattr(processor, "image_mean", None) is None
        or getattr(processor, "image_std", None) is None
    ):
        return None
    return torch.tensor(processor.image_mean), torch.tensor(processor.image_std)
