"""A B-cos classifier on a labelled data set: how often it is right, and how well its explanations do, each with a bootstrap interval.

One pass over the data, a batch at a time; a table says which measure is made how of a batch. Explained is the predicted class, in the grid pointing game the
class of each cell. Sources are in the files of the measures.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from datasets import Dataset, IterableDataset
from torch import Tensor
from tqdm.auto import tqdm

from bcos_hf.data.classifier_inputs import PictureRows, TextRows, batches, rows_of
from bcos_hf.data.images import ImageColumns
from bcos_hf.data.one_split import class_numbers, find_columns, resolved
from bcos_hf.data.text import TextColumns
from bcos_hf.models import unwrapped
from bcos_hf.models.bcos_explanation import Explanation

from .bootstrap import bootstrap_interval
from .finite import check_finite
from .grid_protocol import play_grids
from .grids import compose_grids, sample_grids
from .perturbation import drop_areas, perturbation_drops
from .pixel_perturbation import deletion_curve, insertion_curve


@dataclass
class _Batch:
    """What measures are made of: N inputs with labels [N] and, made when a measure needs it, their explanations (K = 1)."""

    model: torch.nn.Module
    processor: object
    inputs: dict[str, Tensor]
    labels: Tensor

    @cached_property
    def explanation(self) -> Explanation:
        return self.model.explain(**self.inputs, return_weights=False).to("cpu")

    @cached_property
    @torch.no_grad()
    def logits(self) -> Tensor:
        if "explanation" in self.__dict__:
            return self.explanation.logits
        made = self.model(**{name: value.to(self.model.device) for name, value in self.inputs.items()}).logits.cpu()
        check_finite(logits=made)
        return made

    @cached_property
    def drops(self) -> dict[str, Tensor]:
        ids, tokenizer, device = self.inputs["input_ids"], self.processor, self.model.device
        if tokenizer.mask_token_id is None:
            raise ValueError("comprehensiveness, sufficiency: expected a tokenizer with a mask token, which takes the place of tokens; this one has none.")
        others = {name: value.to(device) for name, value in self.inputs.items() if name not in ("input_ids", "attention_mask")}
        special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids)).long()
        given = (value.to(device) for value in (ids, self.inputs["attention_mask"], self.explanation.contributions[:, 0], special))
        return perturbation_drops(partial(self.model, **others), *given, tokenizer.mask_token_id)

    def pixel_areas(self, curve) -> Tensor:
        """[N], of the predicted class's probability (softmax)."""
        given = (self.inputs["pixel_values"].to(self.model.device), self.explanation.contributions[:, 0], self.explanation.targets[:, 0])
        return curve(lambda images: self.model(pixel_values=images).logits.softmax(-1), *given)[1].cpu()


# measure -> what it is of each input of a batch, [N]
BOTH = {
    "accuracy": lambda batch: (batch.logits.argmax(-1) == batch.labels).double(),
    "completeness": lambda batch: batch.explanation.relative_residual[:, 0],
}
TEXTS = {**BOTH, **{name: lambda batch, name=name: drop_areas(batch.drops[name].cpu()) for name in ("comprehensiveness", "sufficiency")}}
PICTURES = {**BOTH, "pixel_deletion": lambda batch: batch.pixel_areas(deletion_curve), "pixel_insertion": lambda batch: batch.pixel_areas(insertion_curve)}
GRIDS = "grid_pointing_game"


def measures_of(pictures: bool) -> list[str]:
    """The names of the measures there are, for a classifier of pictures or of texts."""
    return [*PICTURES, GRIDS] if pictures else list(TEXTS)


@dataclass
class _Seen:
    """Of the rows that were evaluated: number, label, logit of the label, predicted class."""

    numbers: list[int] = field(default_factory=list)
    parts: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    def add(self, numbers: list[int], batch: _Batch) -> None:
        self.numbers += numbers
        self.parts.append((batch.labels, batch.logits.gather(1, batch.labels[:, None])[:, 0], batch.logits.argmax(1)))


def _grid_pointing_game(model, reader: PictureRows, rows: Iterable[tuple[int, dict]], seen: _Seen, seed: int, options: dict) -> dict:
    """Pictures are read again when their grid's turn comes, so that few are in memory."""
    settings = {"n_cells": 4, "count": 50, "threshold": 0.5, "smooth": 15, **options}
    smooth, (labels, confidences, predictions) = settings.pop("smooth"), map(torch.cat, zip(*seen.parts, strict=True))
    grids = sample_grids(confidences, labels, seed=seed, predictions=predictions, **settings)
    wanted = {seen.numbers[index] for index in grids.flatten().tolist()}
    stored = {number: row for number, row in rows if number in wanted}  # as they are stored; `read` decodes
    cells = (torch.stack([reader.read(stored[seen.numbers[index]], index) for index in grid]) for grid in grids.tolist())
    pictures = (compose_grids(pixels, torch.arange(len(pixels))[None]) for pixels in cells)
    more = {} if model.is_convolutional else {"interpolate_pos_encoding": True}  # a grid is larger than a picture
    played = play_grids({"bcos": partial(model.explain, return_weights=False, **more)}, pictures, labels[grids], smooth, seed)["bcos"]
    return {name: played[name] for name in ("mean", "low", "high")} | {"n": len(grids)}


def evaluate_classifier(
    model, processor, dataset: Dataset | IterableDataset, metrics: list[str] | None = None, *, columns: ImageColumns | TextColumns | None = None,
    batch_size: int = 16, seed: int = 0, **grid_options,
) -> dict:  # fmt: skip
    """Measures of a B-cos classifier, in evaluation mode, on labelled rows.

    Args:
        model: of texts or pictures, on any device. processor: its tokenizer or image processor.
        metrics: names of `measures_of`; None: all that there are. A model of pictures without 4 confident classes has no grid pointing game: leave it out.
        columns: None: found by name or type, see `find_columns`. seed: of the intervals and the grids.
        **grid_options: n_cells=4, count=50 and threshold=0.5, as of `sample_grids`, and smooth=15.

    Returns:
        {"metrics": name -> {"mean", "low", "high", "n"} (95 % intervals over inputs, or grids), "n", "skipped" (pictures that are broken, texts that are
        missing), "seed"}. Rows without a label are passed over. "completeness" is |logit - contributions - constant| / sum |contributions|, with its "max".

    Raises:
        ValueError: a measure that does not apply, no column of labels, no labelled row, or too few confident pictures for the grids, or
            logits that are not finite.
        TypeError: a model that is no B-cos classifier.
    """
    model, dataset = unwrapped(model), resolved(dataset).with_format(None)
    features = dataset.features
    columns = columns or find_columns(features, getattr(model, "main_input_name", "") == "pixel_values")
    reader = rows_of(model, processor, columns, "evaluation")
    pictures = not isinstance(reader, TextRows)
    names, table = list(dict.fromkeys(metrics or measures_of(pictures))), PICTURES if pictures else TEXTS
    if unknown := [name for name in names if name not in measures_of(pictures)]:
        raise ValueError(f"metrics: expected some of {measures_of(pictures)} for a {type(model).__name__}, got {unknown}.")
    if columns.label is None:
        raise ValueError(f"expected a column of labels, found {list(features)}. Say which one with label_column.")
    number = class_numbers(features[columns.label], model.config)
    rows = reader.prepared(dataset.select_columns(list(dict.fromkeys(filter(None, vars(columns).values())))))
    labelled = ((index, row) for index, row in enumerate(tqdm(rows, desc="evaluating")) if number(row[columns.label]) >= 0)
    seen, values = _Seen(), {name: [] for name in reversed(table) if name in names}  # those of explanations first, which have the logits too
    for numbers, batch, read in batches(reader, labelled, batch_size):
        made = _Batch(model, processor, reader.inputs(read), torch.tensor([number(row[columns.label]) for row in batch]))
        for name, parts in values.items():
            parts.append(table[name](made))
        seen.add(numbers, made)
    if not seen.numbers:
        raise ValueError("expected at least one row with a label and a text or picture that can be read, found none.")
    skipped, found = reader.skipped, {name: torch.cat(parts) for name, parts in values.items()}
    results = {name: {**bootstrap_interval(value, seed=seed), "n": len(value)} for name, value in found.items()}
    if "completeness" in results:
        results["completeness"]["max"] = found["completeness"].max().item()
    if GRIDS in names:
        results[GRIDS] = _grid_pointing_game(model, reader, enumerate(rows), seen, seed, grid_options)
    return {"metrics": {name: results[name] for name in names}, "n": len(seen.numbers), "skipped": skipped, "seed": seed}
