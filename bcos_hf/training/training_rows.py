"""Some training rows as batches, not varied: what a model is refitted on, and what its head is trained on first."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch
from datasets import Dataset, IterableDataset
from transformers import BaseImageProcessor, DataCollatorWithPadding, PreTrainedTokenizerBase

from bcos_hf.data.image_inputs import LEFT_OUT, prepare_images
from bcos_hf.data.images import ImageColumns
from bcos_hf.data.splits import sample


BATCH = 32


def text_batches(tokens: Dataset, tokenizer: PreTrainedTokenizerBase, count: int, seed: int) -> list[dict]:
    """At most `count` rows of tokenized texts, drawn with `seed`, in batches of texts of about one length, padded on the right."""
    side, tokenizer.padding_side = tokenizer.padding_side, "right"
    try:
        rows = sorted(sample(tokens, count, seed), key=lambda row: len(row["input_ids"]))
        return list(_batches(rows, DataCollatorWithPadding(tokenizer)))
    finally:
        tokenizer.padding_side = side


def image_batches(
    rows: Dataset | IterableDataset, processor: BaseImageProcessor, columns: ImageColumns, count: int, seed: int, broken: str = "raise"
) -> Iterator[dict]:
    """At most `count` rows of images, drawn with `seed` (of a stream the first), as the processor prepares them for evaluation.

    Args:
        broken: as of `ImageInputs`; with "skip", images that cannot be read are left out.
    """
    drawn = rows.take(count) if isinstance(rows, IterableDataset) else sample(rows, count, seed)
    made = prepare_images({"calibration": drawn}, processor, columns, None, broken, seed)["calibration"]
    whole = made if isinstance(made, IterableDataset) else (made[i] for i in range(len(made)))
    return _batches((row for row in whole if row["labels"] != LEFT_OUT), _stacked)


def block_batches(blocks: Dataset, count: int, seed: int, size: int = 4) -> Iterator[dict]:
    """At most `count` blocks of running text, drawn with `seed`."""
    names = ("input_ids", "attention_mask")
    return _batches(sample(blocks, count, seed), lambda rows: {name: torch.tensor([row[name] for row in rows]) for name in names}, size)


def _stacked(rows: list[dict]) -> dict:
    return {"pixel_values": torch.stack([torch.as_tensor(row["pixel_values"]) for row in rows]), "labels": torch.tensor([row["labels"] for row in rows])}


def _batches(rows: Iterable[dict], collate: Callable[[list[dict]], dict], size: int = BATCH) -> Iterator[dict]:
    iterator = iter(rows)
    while some := list(islice(iterator, size)):
        yield dict(collate(some))
