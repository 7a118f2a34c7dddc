"""Convert: a pretrained model becomes its B-cos twin, refitted where there is a data set to calibrate with."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

import bcos_hf
from bcos_hf import models
from bcos_hf.calibration.inputs import normalization
from bcos_hf.calibration.rows import RowReader, draw
from bcos_hf.data import find_columns, load_split
from bcos_hf.data.image_inputs import image_processor
from bcos_hf.data.images import ImageColumns
from bcos_hf.data.one_split import class_numbers
from bcos_hf.data.pictures import CAPTION_NAMES
from bcos_hf.hub.conversion_record import save_conversion
from bcos_hf.hub.push import save_evaluation
from bcos_hf.metrics.agreement import conversion_kept, masked_tokens
from bcos_hf.models.bcos_saving import filled_at_once

from .common import AS_JSON, app, check_new, hub_id, processors, say, told


HELD_OUT = 500
# whose first layer is a convolution on the image: on [x, 1 - x] it holds an exact constant, into which its lost bias goes
CONVOLUTIONAL = ("cifar_resnet", "convnext", "densenet", "resnet", "resnext", "vgg")
UNTRAINED = "It is not calibrated, so it needs fine-tuning before it is of use; with --calibrate DATASET it works at once."
ONLY_CALIBRATING = "expected --calibrate DATASET beside it, got none."


@dataclass
class Calibration:
    """What a data set gives to a conversion.

    Attributes:
        batches: to calibrate with. held_out: others, with the numbers of their classes, None where there are none. skipped: rows that could not be read.
        processor: of the images, as the twin takes them. to_standard: the twin's pixel_values -> the standard model's. mask: id of the mask token.
        without: why no accuracy is measured, '' where one is, or where there are no labels.
    """

    batches: list[dict[str, Tensor]]
    held_out: list[tuple[dict[str, Tensor], Tensor | None]]
    skipped: int = 0
    processor: object = None
    to_standard: object = None
    mask: int | None = None
    without: str = ""
    about: dict = field(default_factory=dict)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="Hub id or folder of a transformers model.")],
    folder: Annotated[Path, typer.Argument(help="Where the B-cos model is saved, new or empty.")],
    b: Annotated[float | None, typer.Option(help="Exponent B; left out: the family's.")] = None,
    weight_norm: Annotated[str | None, typer.Option(help="'unit' or 'none'; to calibrate: 'none'.")] = None,
    use_bias: Annotated[bool, typer.Option(help="Keep the biases.")] = False,
    input_encoding: Annotated[
        str | None,
        typer.Option(help="'normalized' [z, -z], 'add_inverse' [x, 1 - x] or 'none'; left out: the family's, of a calibrated CNN 'add_inverse'."),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(help="Data set that each layer is refitted on, without labels: Hub id, folder of images, or csv, json(l), parquet or txt file."),
    ] = None,
    calibration_samples: Annotated[int, typer.Option(help="Rows to refit on, at most; up to 500 others measure the result.")] = 512,
    r2_budget: Annotated[float | None, typer.Option(help="Choose B for each layer, as high as costs it at most so much of R^2.")] = None,
    split: Annotated[str, typer.Option(help="Of the data set; of a file it is only a name.")] = "train",
    input_column: Annotated[str | None, typer.Option(help="Column of images or texts; left out: found by name or type.")] = None,
    second_text_column: Annotated[str | None, typer.Option(help="Column of second texts; of captions, for a model that compares images with texts.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of labels, which only measure; left out: found by name or type.")] = None,
    seed: Annotated[int, typer.Option(help="Of drawn rows and intervals.")] = 0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print what became of each layer.")] = False,
    as_json: AS_JSON = False,
) -> None:
    """Convert a pretrained model: bcos-hf convert my-classifier bcos-classifier --calibrate my-data.csv

    With a data set to calibrate with it works at once; without one it is to be fine-tuned.
    """
    with told():
        check_new(folder, source)
        if calibrate is None and r2_budget is not None:
            raise ValueError(f"--r2-budget: {ONLY_CALIBRATING}")
        if b is not None and r2_budget is not None:
            raise ValueError("--b, --r2-budget: expected one of them, got both.")
        if calibrate is not None and weight_norm not in (None, "none"):
            raise ValueError(f"--weight-norm, --calibrate: expected weight norm 'none' with a calibration, got {weight_norm!r}, whose rows have no scale to fit.")
        if calibrate is not None and input_encoding is None and AutoConfig.from_pretrained(source).model_type in CONVOLUTIONAL:
            input_encoding = "add_inverse"
        given = {"b": b, "weight_norm": weight_norm, "input_encoding": input_encoding}
        fields = {"use_bias": use_bias, **{name: value for name, value in given.items() if value is not None}}
        beside, kept, notes = processors(source), {}, [UNTRAINED]
        if calibrate is None:
            model = bcos_hf.bcosify(source, **fields)
            if input_encoding == "add_inverse":
                beside = [*(part for part in beside if not hasattr(part, "do_normalize")), image_processor(source, model.config, input_encoding)]
        else:
            standard, _ = models.standard_of(source)
            columns = {"input_column": input_column, "second": second_text_column, "label": label_column}
            read = _calibration(source, standard, calibrate, split, calibration_samples, seed, input_encoding, columns)
            model = bcos_hf.bcosify(source, calibration=read.batches, r2_budget=r2_budget, refit={"seed": seed, "progress": not as_json}, **fields)
            model.conversion_report.calibration |= read.about
            kept = conversion_kept(standard, model, read.held_out, read.to_standard, read.mask, seed)
            notes = _notes(read, kept)
            if read.processor is not None:
                beside = [*(part for part in beside if not hasattr(part, "do_normalize")), read.processor]
        with filled_at_once(folder) as temporary:
            for part in (model, *beside):
                part.save_pretrained(temporary)
            save_conversion(temporary, model)
            if kept:
                save_evaluation(temporary, kept, [calibrate] if hub_id(calibrate) else None)
        report = model.conversion_report
        if report.new:
            notes.append(f"New and random, to be trained: {', '.join(report.new[:4])}.")
        lines = [f"{type(model).__name__}: {report.summary()}", *notes, f"Saved to {folder}."]
        made = {"model": type(model).__name__, "folder": str(folder), "metrics": kept, "notes": notes, **report.to_dict()}
        say(made, as_json, "\n".join([*([str(report), ""] if verbose else []), *lines]))


def _calibration(source: str, standard, dataset: str, split: str, samples: int, seed: int, encoding: str | None, columns: dict) -> Calibration:
    """The rows of a data set as batches for the twin; see `convert`."""
    zero_shot = hasattr(standard.config, "text_config") and hasattr(standard.config, "vision_config")
    images = zero_shot or standard.main_input_name == "pixel_values"
    rows = load_split(dataset, split, seed=seed)
    found = find_columns(rows.features, images, columns["input_column"], None if images else columns["second"], columns["label"])
    if zero_shot:
        found = replace(found, caption=columns["second"] or next((name for name in CAPTION_NAMES if name in rows.features), None))
        if found.caption not in rows.features:
            raise ValueError(f"{dataset}: expected a column of captions beside the images, found {list(rows.features)}. Name it with --second-text-column.")
    number, without = _numbers(rows, found.label, columns["label"], standard.config)
    tokenizer = AutoTokenizer.from_pretrained(source) if not images or zero_shot else None
    processor, to_standard = None, None
    if images:
        config = getattr(standard.config, "vision_config", standard.config)
        mean, std = _normalization(source, config)
        processor = image_processor(source, config, encoding or "normalized")
        if encoding == "add_inverse":
            to_standard = lambda pixels: (pixels - mean.to(pixels)) / std.to(pixels)
    kept_columns = () if number is None else (found.label,)
    reader = RowReader(standard, tokenizer, processor, found, kept_columns)
    fitted, others = draw(rows, samples, HELD_OUT, seed)
    batches = [inputs for inputs, _ in reader.batches(fitted)]
    mask = None if tokenizer is None else tokenizer.mask_token_id
    if mask is not None and type(standard).__name__.endswith("ForMaskedLM"):  # what it is used on
        generator = torch.Generator().manual_seed(seed)
        batches = [masked_tokens(inputs, mask, generator)[0] for inputs in batches]
    held_out = [(inputs, None if number is None else torch.tensor([number(row[found.label]) for row in kept])) for inputs, kept in reader.batches(others)]
    about = {"source": dataset if hub_id(dataset) or not Path(dataset).exists() else Path(dataset).name, "split": split, "seed": seed}
    return Calibration(batches, held_out, reader.skipped, processor if isinstance(found, ImageColumns) else None, to_standard, mask, without, about)


def _normalization(source: str, config) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the source's images, [C, 1, 1]."""
    own = image_processor(source, config)
    return tuple(value.view(-1, 1, 1) for value in normalization(own, own.do_normalize))


def _numbers(rows, label: str | None, given: str | None, config):
    """What makes of a label the number of its class, None where no accuracy can be measured; and why that is.

    Labels that were found and not asked for may be those of another task: then they are passed over.
    """
    if label is None or (config.architectures or [""])[0].rpartition("For")[2] not in ("SequenceClassification", "ImageClassification"):
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


def _notes(read: Calibration, kept: dict) -> list[str]:
    """What was measured, for people."""
    rows = sum(len(next(iter(inputs.values()))) for inputs, _ in read.held_out)
    fitted = sum(len(next(iter(inputs.values()))) for inputs in read.batches)
    skipped = f"; {read.skipped} could not be read" if read.skipped else ""
    few = ", fewer than 500, as the data set is small" if rows < HELD_OUT else ""
    lines = [f"Refitted on {fitted} rows without labels; measured on {rows} others{few}{skipped}."]
    for name, found in kept.items():
        interval = f"{found['low']:.4g} to {found['high']:.4g}, " if "low" in found else ""
        lines.append(f"{name.replace('_', ' ')}: {found['mean']:.4g} ({interval}n = {found['n']})")
    return [*lines, *filter(None, [read.without])]
