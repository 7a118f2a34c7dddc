"""Rows of a data set as a classifier takes them, a batch at a time: texts and pairs of texts through a tokenizer, pictures through an image processor.

What cannot be read is left out and counted. Both classes have the same four steps, so that whoever goes through a data set needs no branch.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from datasets import Array2D, Dataset, Image, IterableDataset, Sequence, Value
from PIL import Image as Pillow
from torch import Tensor
from transformers.utils import logging

from bcos_hf.models.bcos_explanation import Explanation
from bcos_hf.models.bcos_processors import image_channels
from bcos_hf.models.bcos_text import positions_of

from .image_files import decode
from .image_inputs import LEFT_OUT, ImageInputs, for_channels
from .images import ImageColumns
from .text import TextColumns


logger = logging.get_logger(__name__)


class TextRows:
    """Texts, as long as the model takes them; longer ones are truncated, which is said, and a missing one is skipped.

    Attributes:
        truncated: (number of tokens that the model reads, number that the text has) of each text in the last `inputs`;
            None of one that is whole.
    """

    def __init__(self, model, tokenizer, columns: TextColumns, split: str) -> None:
        self.tokenizer, self.split, self.skipped = tokenizer, split, 0
        self.truncated: list[tuple[int, int] | None] = []
        self.cut = 0
        self.limit = min(tokenizer.model_max_length, positions_of(model.base_model))
        self.names = {"text": columns.text, **({} if columns.second_text is None else {"second_text": columns.second_text})}

    def prepared(self, rows: Dataset | IterableDataset) -> Dataset | IterableDataset:
        """`rows` as `read` takes them."""
        return rows

    def read(self, row: dict, index: int) -> dict | None:
        """The texts of a row; None: there is none."""
        texts = {name: row[column] for name, column in self.names.items()}
        if all(isinstance(text, str) for text in texts.values()) and self._has_tokens(list(texts.values())):
            return texts
        self.skipped += 1
        logger.warning(f"{self.split}: row {index} has no text; left out, as {self.skipped} so far.")
        return None

    def inputs(self, read: list[dict]) -> dict[str, Tensor]:
        """What the model takes, [N, L], padded."""
        texts = [[row[name] for row in read] for name in self.names]
        made = self.tokenizer(*texts, padding=len(read) > 1, truncation=True, max_length=self.limit, return_tensors="pt")
        self.truncated = [self._cut(parts, mask) for parts, mask in zip(zip(*texts, strict=True), made["attention_mask"], strict=True)]
        cut = sum(one is not None for one in self.truncated)
        if cut and not self.cut:
            logger.warning(f"{self.split}: the model reads the first {self.limit} tokens of a text; longer ones are truncated.")
        self.cut += cut
        return dict(made)

    def _has_tokens(self, texts: list[str]) -> bool:
        """Whether a tokenizer makes anything of texts; of an empty one some make nothing."""
        return any(text.strip() for text in texts) or bool(self.tokenizer(*texts)["input_ids"])

    def _cut(self, texts: tuple[str, ...], mask: Tensor) -> tuple[int, int] | None:
        """How many tokens the model reads of a text, and how many it has; None: all."""
        seen = int(mask.sum())
        whole = len(self.tokenizer(*texts, verbose=False)["input_ids"]) if seen >= self.limit else seen
        return (seen, whole) if whole > seen else None

    def features(self, dtype: str) -> dict:
        """Types of `described`."""
        return {**{name: Value("string") for name in self.names}, "tokens": Sequence(Value("string")), "contributions": Sequence(Value(dtype))}

    def described(self, read: list[dict], inputs: dict[str, Tensor], explanation: Explanation, dtype: str) -> dict[str, list]:
        """Texts, their tokens, special ones included, and their contributions to the first target; without padding."""
        kept = inputs["attention_mask"].bool().cpu()
        tokens = [[token for token, real in zip(row, mask, strict=True) if real] for row, mask in zip(explanation.tokens, kept.tolist(), strict=True)]
        values = [row[mask].numpy().astype(dtype) for row, mask in zip(explanation.contributions[:, 0].cpu(), kept, strict=True)]
        return {**{name: [row[name] for row in read] for name in self.names}, "tokens": tokens, "contributions": values}


class PictureRows:
    """Pictures in the size that the model takes; one that is broken or missing is skipped."""

    def __init__(self, model, processor, columns: ImageColumns, split: str) -> None:
        self.column = columns.image
        channels = image_channels(model.config)
        processor = for_channels(processor, channels)
        self.reader = ImageInputs(split, ImageColumns(columns.image, None), processor, broken="skip", channels=channels)
        self.size = tuple(self.reader.zeros.shape[-2:])

    @property
    def skipped(self) -> int:
        """How many so far."""
        return self.reader.skipped

    def prepared(self, rows: Dataset | IterableDataset) -> Dataset | IterableDataset:
        """`rows` as `read` takes them: pictures as they are stored, so that a broken one is met there."""
        return rows.cast_column(self.column, Image(decode=False))

    def read(self, row: dict, index: int) -> Tensor | None:
        """Pixels [C, H, W]; None: the picture is broken."""
        made = self.reader(row, index)
        return None if made["labels"] == LEFT_OUT else made["pixel_values"]

    def pixels(self, content: bytes) -> Tensor:
        """Pixels [C, H, W] of a file's content. Raises what Pillow raises where it is broken."""
        return self.reader.pixels(decode(content, self.reader.channels))

    def inputs(self, read: list[Tensor]) -> dict[str, Tensor]:
        """What the model takes, [N, C, H, W]."""
        return {"pixel_values": torch.stack(read)}

    def features(self, dtype: str) -> dict:
        """Types of `described`."""
        return {"image": Image(), "contributions": Array2D(self.size, dtype)}

    def described(self, read: list[Tensor], inputs: dict[str, Tensor], explanation: Explanation, dtype: str) -> dict[str, list]:
        """Pictures as the model saw them, resized and cropped, so that the contributions [H, W] to the first target lie on them."""
        values = explanation.contributions[:, 0].cpu().numpy().astype(dtype)
        return {"image": [self._picture(pixels) for pixels in read], "contributions": list(values)}

    def _picture(self, pixels: Tensor) -> Pillow.Image:
        """The 8 bits a channel that a processor made `pixels` of."""
        processor, values = self.reader.processor, pixels.double()
        if processor.do_normalize:
            mean, std = (torch.as_tensor(np.broadcast_to(value, len(pixels)).copy())[:, None, None] for value in (processor.image_mean, processor.image_std))
            values = values * std + mean
        values = values / processor.rescale_factor if processor.do_rescale else values
        values = values.round().clamp(0, 255).byte()
        return Pillow.fromarray(values[0].numpy() if len(values) == 1 else values.permute(1, 2, 0).numpy())


def rows_of(model, processor, columns: TextColumns | ImageColumns, split: str) -> TextRows | PictureRows:
    """That of the two which fits a B-cos classifier.

    Raises:
        TypeError: a model that is no B-cos classifier of texts or pictures.
    """
    kinds = {"ForSequenceClassification": TextRows, "ForImageClassification": PictureRows}
    kind = next((kind for end, kind in kinds.items() if type(model).__name__.endswith(end)), None)
    if kind is None or not hasattr(model, "explain"):
        raise TypeError(f"expected a B-cos model that ends in {' or '.join(kinds)}, got a {type(model).__name__}.")
    return kind(model, processor, columns, split)


def batches(reader: TextRows | PictureRows, rows: Iterable[tuple[int, dict]], size: int) -> Iterator[tuple[list[int], list[dict], list]]:
    """Numbers, rows, and what `reader` reads of them, at most `size` at a time and only when asked for; rows that cannot be read are left out."""
    if size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {size}.")
    readable = ((index, row, read) for index, row in rows if (read := reader.read(row, index)) is not None)
    while batch := list(islice(readable, size)):
        yield tuple(map(list, zip(*batch, strict=True)))
