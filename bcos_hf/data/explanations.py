"""Explanations of a whole data set as a data set: parquet files with the contributions beside each text or picture, made a batch at a time.

Memory does not grow with the data set: rows are read, explained and written in turn. Of shard k are the rows k * rows_per_file to (k + 1) * rows_per_file - 1
of the source, and no batch reaches over its end, so that a run that was interrupted goes on with the first missing shard and ends with the same files.
"""

import operator
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, IterableDataset, Value
from tqdm.auto import tqdm

from bcos_hf.hub.explanation_card import write_explanation_card
from bcos_hf.hub.explanation_folder import ExplainedSplit, open_split
from bcos_hf.models import unwrapped
from bcos_hf.models.bcos_class_names import class_names, class_number, distinct_names

from .classifier_inputs import PictureRows, TextRows, batches, rows_of
from .fingerprints import dataset_fingerprint, model_fingerprint, processor_fingerprint
from .images import ImageColumns
from .one_split import class_numbers, find_columns, resolved
from .text import TextColumns


DTYPES = ("float32", "float16")
NUMBERS = ("probability", "logit", "constant", "residual")


def _target(target: int | str | None, features: Features, config) -> Callable[[dict], int] | None:
    """Row -> the class to explain; None: the predicted one."""
    if isinstance(target, str) and target in features:
        number = class_numbers(features[target], config)

        def of_row(row: dict) -> int:
            if (found := number(row[target])) < 0:
                raise ValueError(f"target={target!r}: expected a label in every row, found {row[target]!r}. Explain the predicted classes: target=None.")
            return found

        return of_row
    if target is None:
        return None
    names = class_names(config)
    if isinstance(target, str):
        chosen = class_number(target, names, f"target: expected a column of {list(features)}, or a class")
    else:
        chosen = operator.index(target)
        if not 0 <= chosen < len(names):
            raise ValueError(f"target: expected a class of {names[:10]} or its number, got {target!r}.")
    return lambda row: chosen


class _Explainer:
    """Numbered rows -> tables of their explanations, one a batch."""

    def __init__(self, model, processor, reader: TextRows | PictureRows, label: tuple | None, target: Callable | None, dtype: str) -> None:
        self.model, self.reader, self.label, self.target, self.dtype = model, reader, label, target, dtype
        self.options = {"tokenizer": processor} if isinstance(reader, TextRows) else {}
        classes = ClassLabel(names=distinct_names(class_names(model.config)))
        named = dict.fromkeys(("target", "prediction", *(("label",) if label else ())), classes)
        numbers = {name: Value("float32") for name in NUMBERS}
        self.features = Features({**reader.features(dtype), **named, **numbers, "index": Value("int64")})

    def __call__(self, rows: Iterable[tuple[int, dict]], batch_size: int) -> Iterator[pa.Table]:
        for indices, batch, read in batches(self.reader, rows, batch_size):
            inputs = self.reader.inputs(read)
            targets = None if self.target is None else [[self.target(row)] for row in batch]
            made = self.model.explain(**inputs, targets=targets, return_weights=False, **self.options)
            logit = made.explained_logits[:, 0]
            columns = {"target": made.targets[:, 0], "prediction": made.logits.argmax(-1), "probability": logit.sigmoid(), "logit": logit}
            columns |= {"constant": made.constant[:, 0], "residual": made.residual[:, 0]}
            columns = {name: value.tolist() for name, value in columns.items()} | {"index": indices} | self.reader.described(read, inputs, made, self.dtype)
            if self.label:
                name, number = self.label
                columns["label"] = [number(row[name]) for row in batch]
            yield Dataset.from_dict({name: columns[name] for name in self.features}, features=self.features).data.table


def _explain(found: ExplainedSplit, explainer: _Explainer, rows: Iterator[tuple[int, dict]], batch_size: int, rows_per_file: int) -> None:
    """All shards that are missing, and the card."""
    schema, skipped = explainer.features.arrow_schema, explainer.reader.skipped
    while (first := next(rows, None)) is not None:
        written = 0

        def tables(part: Iterable[tuple[int, dict]]) -> Iterator[pa.Table]:
            nonlocal written
            for table in explainer(part, batch_size):
                written += len(table)
                yield table

        found.add(schema, tables(chain([first], islice(rows, rows_per_file - 1))))
        found.counted(written, explainer.reader.skipped - skipped)
        skipped = explainer.reader.skipped
    if not found.shards:
        raise ValueError(f"{found.name}: expected at least one row, found none.")
    found.complete = True
    found.save()


def explain_dataset(
    model, processor, dataset: Dataset | IterableDataset, output: str | os.PathLike, *, batch_size: int = 16, target: int | str | None = None,
    rows_per_file: int = 1000, split: str = "train", columns: ImageColumns | TextColumns | None = None, dtype: str = "float32", source: str | None = None,
) -> dict:  # fmt: skip
    """Explain every row of `dataset` and write `output`/data/{split}-00000.parquet and so on, a record, and a card: `load_dataset(output)` reads it.

    Columns: image (as the model saw it) and contributions [H, W], or text, tokens and contributions [L]; target, prediction, label (where there is one),
    probability (sigmoid), logit, constant, residual, and index, the row's number in `dataset`. Contributions and constant add up to the logit.

    What is there already stays, and a finished split is not made again. The record has fingerprints of model (configuration and weights), processor, data
    set and settings, and a folder that was made from others is refused. A stream (IterableDataset) has no fingerprint: it is yours to give the same one, in
    the same order, when a run goes on; its first rows are then passed over.

    Args:
        model: a B-cos classifier of texts or pictures, on any device. processor: its tokenizer or image processor, whose pictures are of one size.
        batch_size: rows at a time; another one, also in a run that goes on, changes rounding only.
        target: what to explain: None, the predicted class; a column of labels; a class's name or number.
        columns: where text or picture and label are; None: found by name or type, see `find_columns`.
        dtype: of the contributions; "float16" halves the files, and the sum is then exact to three digits.
        source: Hub id of the data set, for the card.

    Returns:
        {"folder", "split", "rows", "skipped", "files"}: skipped are pictures that are broken and texts that are missing.

    Raises:
        ValueError: an argument out of range, no row, a label that the model has not, or a folder that was made from something else (which stays as it is).
        TypeError: a model that is no B-cos classifier.
    """
    if rows_per_file < 1 or batch_size < 1 or dtype not in DTYPES:
        raise ValueError(f"expected rows_per_file >= 1, batch_size >= 1 and dtype of {DTYPES}, got {rows_per_file}, {batch_size} and {dtype!r}.")
    model, dataset = unwrapped(model), resolved(dataset).with_format(None)
    features = dataset.features
    columns = columns or find_columns(features, getattr(model, "main_input_name", "") == "pixel_values")
    reader = rows_of(model, processor, columns, split)
    label = None if columns.label is None else (columns.label, class_numbers(features[columns.label], model.config))
    explainer = _Explainer(model, processor, reader, label, _target(target, features, model.config), dtype)
    made_from = {"model": model_fingerprint(model), "processor": processor_fingerprint(processor), "dataset": dataset_fingerprint(dataset)}
    made_from |= {"columns": asdict(columns), "target": target, "rows_per_file": rows_per_file, "dtype": dtype}
    name = model.name_or_path
    about = {"model": name if name and not Path(name).exists() else None, "class": type(model).__name__, "source": source}
    found = open_split(output, split, made_from, about)
    if not found.complete:
        used = [value for value in dict.fromkeys([*asdict(columns).values(), target]) if value in features]
        start, rows = found.count("rows") + found.count("skipped"), reader.prepared(dataset.select_columns(used))
        rest = rows.select(range(start, len(rows))) if isinstance(rows, Dataset) else rows.skip(start)
        total = len(rows) if isinstance(rows, Dataset) else None
        numbered = enumerate(tqdm(rest, desc="explaining", initial=start, total=total), start)
        _explain(found, explainer, numbered, batch_size, rows_per_file)
    write_explanation_card(found.folder)
    files = [str(found.shard(number)) for number in range(len(found.shards))]
    return {"folder": str(found.folder), "split": split, "rows": found.count("rows"), "skipped": found.count("skipped"), "files": files}
