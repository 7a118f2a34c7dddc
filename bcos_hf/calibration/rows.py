"""Rows of a data set that calibrate a conversion, and others that measure it, read by the model's own processor."""

from collections.abc import Iterator

from datasets import Dataset
from torch import Tensor

from bcos_hf.data.classifier_inputs import PictureRows, TextRows
from bcos_hf.data.images import ImageColumns
from bcos_hf.data.text import TextColumns

from .inputs import IMAGE_BATCH, LONGEST


Batches = list[tuple[dict[str, Tensor], list[dict]]]


def draw(rows: Dataset, samples: int, held_out: int, seed: int) -> tuple[Dataset, Dataset]:
    """At most `samples` rows to calibrate with, and at most `held_out` others; of a small data set a fifth is held out.

    Raises:
        ValueError: fewer than 1 sample, or than 2 rows.
    """
    if samples < 1 or held_out < 1:
        raise ValueError(f"--calibration-samples: expected at least 1, got {samples}.")
    if len(rows) < 2:
        raise ValueError(
            f"calibration: expected at least 2 rows, one to calibrate with and one that is held out; found {len(rows)}."
        )
    kept = max(1, min(held_out, max(len(rows) - samples, len(rows) // 5)))
    order = rows.shuffle(seed=seed)
    taken = min(samples, len(rows) - kept)
    return order.select(range(taken)), order.select(range(taken, taken + kept))


class RowReader:
    """Rows as batches that a model takes, beside what `kept` columns hold of each row.

    Args:
        model: standard or B-cos. tokenizer, processor: the ones it needs of the two.
        columns: of texts or images; of a model that compares images with texts those of images, with their captions.
        kept: columns to be handed on, such as that of labels.
    """

    def __init__(
        self, model, tokenizer, processor, columns: TextColumns | ImageColumns, kept: tuple[str, ...] = ()
    ) -> None:
        self.kept, self.texts, self.images = kept, None, None
        if isinstance(columns, ImageColumns):
            self.images = PictureRows(model, processor, columns, "calibration")
            columns = columns.caption and TextColumns(columns.caption, None, None)
        if columns:
            if tokenizer.pad_token_id is None:
                tokenizer.pad_token = tokenizer.eos_token
            tokenizer.padding_side = "right"
            self.texts = TextRows(
                model.text_model if self.images and hasattr(model, "text_model") else model,
                tokenizer,
                columns,
                "calibration",
            )
            self.texts.limit = min(self.texts.limit, LONGEST)
        self.readers = [reader for reader in (self.images, self.texts) if reader is not None]

    @property
    def skipped(self) -> int:
        """How many rows could not be read so far."""
        return sum(reader.skipped for reader in self.readers)

    def batches(self, rows: Dataset) -> Batches:
        """All rows that can be read; texts by their length, so that there is little padding.

        Raises:
            ValueError: none can be read.
        """
        found = list(self._read(rows))
        if not found:
            raise ValueError(f"calibration: expected rows that can be read, found none among {len(rows)}.")
        if self.images is None:
            found.sort(key=lambda pair: sum(map(len, pair[0][0].values())))
        parts = (found[start : start + IMAGE_BATCH] for start in range(0, len(found), IMAGE_BATCH))
        return [(self._inputs([read for read, _ in part]), [row for _, row in part]) for part in parts]

    def _read(self, rows: Dataset) -> Iterator[tuple[list, dict]]:
        for reader in self.readers:
            rows = reader.prepared(rows)
        for index, row in enumerate(rows):
            read = [reader.read(row, index) for reader in self.readers]
            if all(part is not None for part in read):
                yield read, {name: row[name] for name in self.kept}

    def _inputs(self, read: list[list]) -> dict[str, Tensor]:
        made = [reader.inputs(list(parts)) for reader, parts in zip(self.readers, zip(*read, strict=True), strict=True)]
        return {name: value for inputs in made for name, value in inputs.items()}
