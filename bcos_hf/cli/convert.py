"""Convert: a pretrained model becomes its B-cos twin, refitted where there is a data set to calibrate with."""

from pathlib import Path
from typing import Annotated

import typer

import bcos_hf
from bcos_hf import models
from bcos_hf.data.image_inputs import image_processor
from bcos_hf.hub.conversion_record import save_conversion
from bcos_hf.hub.push import save_evaluation
from bcos_hf.metrics.agreement import conversion_kept
from bcos_hf.models.bcos_bounds import check_folder, saved_config
from bcos_hf.models.bcos_writing import filled_at_once

from .calibration_data import HELD_OUT, Calibration, Columns, calibration_of
from .common import AS_JSON, app, check_new, hub_id, processors, say, told


# whose first layer is a convolution on the image: on [x, 1 - x] it holds an exact constant, for its lost bias
CNNS = ("cifar_resnet", "convnext", "densenet", "resnet", "resnext", "vgg")
UNTRAINED = "It is not calibrated, so it needs fine-tuning before it is of use; with --calibrate it works at once."
ENCODING = (
    "'normalized' [z, -z], 'add_inverse' [x, 1 - x], 'none'; left out: the family's; of a calibrated CNN add_inverse."
)
DATASET = "To refit each layer on, without labels: Hub id, folder of images, or csv, json(l), parquet or txt file."


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="Hub id or folder of a transformers model.")],
    folder: Annotated[Path, typer.Argument(help="Where the B-cos model is saved, new or empty.")],
    b: Annotated[float | None, typer.Option(help="Exponent B; left out: the family's.")] = None,
    weight_norm: Annotated[str | None, typer.Option(help="'unit' or 'none'; to calibrate: 'none'.")] = None,
    keep_biases: Annotated[bool, typer.Option(help="Keep the biases.")] = False,
    input_encoding: Annotated[str | None, typer.Option(help=ENCODING)] = None,
    calibrate: Annotated[str | None, typer.Option(help=DATASET)] = None,
    calibration_samples: Annotated[
        int, typer.Option(help="Rows to refit on, at most; up to 500 others measure.")
    ] = 512,
    r2_budget: Annotated[
        float | None, typer.Option(help="B for each layer, as high as costs it so much of R^2.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of the data set; of a file it is only a name.")] = "train",
    input_column: Annotated[
        str | None, typer.Option(help="Of images or texts; left out: found by name or type.")
    ] = None,
    second_text_column: Annotated[str | None, typer.Option(help="Of second texts, or captions beside images.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Of labels, which only measure; left out: found.")] = None,
    seed: Annotated[int, typer.Option(help="Of drawn rows and intervals.")] = 0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print what became of each layer.")] = False,
    as_json: AS_JSON = False,
) -> None:
    """Convert a pretrained model: bcos-hf convert my-classifier bcos-classifier --calibrate my-data.csv

    With a data set to calibrate with it works at once; without one it is to be fine-tuned.
    """
    with told():
        check_new(folder, source)
        check_folder(source)
        _check(calibrate, weight_norm, b, r2_budget)
        if calibrate is not None and input_encoding is None and saved_config(source).model_type in CNNS:
            input_encoding = "add_inverse"
        given = {"b": b, "weight_norm": weight_norm, "input_encoding": input_encoding}
        fields = {"keep_biases": keep_biases, **{name: value for name, value in given.items() if value is not None}}
        beside, kept, notes = processors(source), {}, [UNTRAINED]
        images = None
        if calibrate is None:
            model = bcos_hf.bcosify(source, **fields)
            images = image_processor(source, model.config, input_encoding) if input_encoding == "add_inverse" else None
        else:
            standard, _ = models.standard_of(source)
            columns = Columns(input_column, second_text_column, label_column)
            read = calibration_of(
                source, standard, calibrate, split, calibration_samples, seed, input_encoding, columns
            )
            settings = {"seed": seed, "progress": not as_json}
            model = bcos_hf.bcosify(source, calibration=read.batches, r2_budget=r2_budget, refit=settings, **fields)
            model.conversion_report.calibration |= read.about
            kept = conversion_kept(standard, model, read.held_out, read.to_standard, read.mask, seed)
            notes, images = _notes(read, kept), read.processor
        if images is not None:
            beside = [*(part for part in beside if not hasattr(part, "do_normalize")), images]
        with filled_at_once(folder) as temporary:
            for part in (model, *beside):
                part.save_pretrained(temporary)
            save_conversion(temporary, model)
            if kept:
                save_evaluation(temporary, kept, [calibrate] if hub_id(calibrate) else None)
        _tell(model, folder, kept, notes, verbose, as_json)


def _check(calibrate: str | None, weight_norm: str | None, b: float | None, r2_budget: float | None) -> None:
    """Refuse options that do not go together."""
    if calibrate is None and r2_budget is not None:
        raise ValueError("--r2-budget: expected --calibrate DATASET beside it, got none.")
    if b is not None and r2_budget is not None:
        raise ValueError("--b, --r2-budget: expected one of them, got both.")
    if calibrate is not None and weight_norm not in (None, "none"):
        raise ValueError(
            f"--weight-norm, --calibrate: expected weight norm 'none' with a calibration, got {weight_norm!r}, "
            "whose rows have no scale to fit."
        )


def _tell(model, folder: Path, kept: dict, notes: list[str], verbose: bool, as_json: bool) -> None:
    """Print what was done."""
    report = model.conversion_report
    if report.new:
        notes = [*notes, f"New and random, to be trained: {', '.join(report.new[:4])}."]
    made = {"model": type(model).__name__, "folder": str(folder), "metrics": kept, "notes": notes, **report.to_dict()}
    lines = [f"{type(model).__name__}: {report.summary()}", *notes, f"Saved to {folder}."]
    say(made, as_json, *([*str(report).splitlines(), ""] if verbose else []), *lines)


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
