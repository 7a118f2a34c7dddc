"""bcos_conversion.json: where a B-cos model comes from, what became of each layer, and how it was refitted.

A model that is loaded knows its layers, but not what its conversion dropped or fitted; the file beside it does. The
fingerprint of the converted weights tells whether they were trained since.
"""

import json
from pathlib import Path

import torch

from bcos_hf import __version__
from bcos_hf.data.fingerprints import weights_fingerprint
from bcos_hf.models.bcos_writing import write_json


CONVERSION = "bcos_conversion.json"
KNOWN_AT_CONVERSION = ("dropped", "new", "fits", "calibration", "weights")


def recorded_conversion(folder: str | Path) -> dict:
    """What `save_conversion` left in a model's folder; {} where there is nothing.

    Raises:
        ValueError: another file of that name.
    """
    file = Path(folder, CONVERSION)
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: expected JSON, which this is not ({error}). Repair or remove it.") from error
    if not isinstance(found, dict) or "converted" not in found:
        raise ValueError(f"{file}: expected an object with 'converted', got {str(found)[:80]}. Repair or remove it.")
    return found


def conversion_record(model) -> dict:
    """What became of each layer, with B, origin and versions; where its folder has a record, those facts stay."""
    config, report = model.config, model.conversion_report.to_dict()
    if not any(report[name] for name in KNOWN_AT_CONVERSION) and Path(config._name_or_path or CONVERSION).is_dir():
        before = recorded_conversion(config._name_or_path)
        report |= {name: before[name] for name in KNOWN_AT_CONVERSION if name in before}
    origin = {
        "base_model": config.base_model,
        "base_revision": config.base_revision,
        "b": config.b,
        "weight_norm": config.weight_norm,
    }
    return {**origin, "bcos_hf": __version__, "torch": torch.__version__.split("+")[0], **report}


def save_conversion(folder: str | Path, model) -> None:
    """Leave the record of `model` in its folder."""
    write_json(Path(folder, CONVERSION), conversion_record(model))


def trained_since(model, record: dict) -> bool | None:
    """Whether the weights are others than those of the conversion; None where that is not known."""
    before = record.get("weights")
    if before is None:
        return None
    now = weights_fingerprint(model)
    return None if before.split(":")[0] != now.split(":")[0] else before != now  # of another dtype nothing can be said
