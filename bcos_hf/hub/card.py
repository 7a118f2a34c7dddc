"""A model card that is filled from the model and from what was measured; nothing in it is written by hand, and what is unknown is left out.

Blocks and keys that a person added to an existing card stay, see `card_text`.
"""

import math

from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.repocard_data import eval_results_to_model_index
from transformers.utils import logging

from bcos_hf import __version__

from .card_text import merged_card
from .conversion_record import conversion_record, trained_since
from .exactness import exactness_sentence
from .usage import Usage, task_of


logger = logging.get_logger(__name__)

ABOUT = """# {title}

A **B-cos** network: its layers compute |cos(x, w)|^(B-1) (w . x), without bias, so that the whole network is dynamic linear, y = W(x) x. Its explanation is
the computation itself: the contributions of the {parts}, with a constant for what no input contributes, add up to each logit. {origin}B = {b}, {rows}{biases}.
Loads with `bcos_hf`, or with `trust_remote_code=True` without it."""
LIMITS = """## Limits

Contributions say how this model decides, not what is true; they are those of the model as it is, its mistakes included. {constant}"""
CITATION = """## Citation

Method: Boehle et al., *B-cos Networks* (CVPR 2022) and *B-cos Alignment* (TPAMI 2024); Arya et al., *B-cosification* (NeurIPS 2024); Wang et al., *B-cos LM*
(TMLR 2025). Made with bcos_hf {version}."""
REFIT_CITATION = """ Parts of the refit: layers reconstructed by least squares, He et al.,
*Channel Pruning* (ICCV 2017); absorbed biases, Nagel et al., *Data-Free Quantization* (ICCV 2019)."""
UNTRAINED = "without training: it needs fine-tuning, or a refit (`bcos-hf convert --calibrate`), before it is of use"


def origin_sentence(model, trained: bool | None) -> str:
    """What the model was made from and how, as far as that is known; '' of one that was not converted.

    Args:
        trained: whether it was trained after its conversion; None: by its weights, where their fingerprint at conversion is known.
    """
    record, base = conversion_record(model), model.config.base_model
    refit = record["calibration"]
    if base is None and refit is None and record["weights"] is None:
        return ""
    trained = trained_since(model, record) if trained is None else trained
    source = "a standard model" if base is None else f"[{base}](https://huggingface.co/{base})"
    if refit is None:
        same = model.config.b == 1 and model.config.keep_biases  # what the standard model computes, so that nothing is amiss
        plain = ", without training. " if same else f", {UNTRAINED}. "
        return f"Converted from {source}" + {None: ". ", True: ", then fine-tuned. ", False: plain}[trained]
    made = f"Converted from {source} by a least-squares refit of its layers on {refit['samples']:,} unlabeled inputs"
    return made + {None: ". ", True: ", then fine-tuned. ", False: ", without training. "}[trained]


def licence_of(base_model: str | None) -> str:
    """The licence that the base model's card names; "other", with a warning, where there is none to read."""
    try:
        found = None if base_model is None else ModelCard.load(base_model).data.license
    except (EntryNotFoundError, RepositoryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError):
        found = None
    if found is None:
        logger.warning(f"model card: no licence is known of the base model ({base_model}), so it is 'other'. Pass license=... if you know it.")
    return found or "other"


def plain_metrics(metrics: dict) -> dict[str, dict]:
    """`metrics` as name -> {"mean"} or {"mean", "low", "high"}: of nested ones, such as those of each class, and of lists one for each part; numbers alone."""
    found = {}
    for name, value in metrics.items():
        value = value.tolist() if hasattr(value, "tolist") else value  # of numpy and torch
        if isinstance(value, dict) and "mean" in value:
            parts = {part: _number(value.get(part)) for part in ("mean", "low", "high")}
            found[str(name)] = parts if None not in parts.values() else {"mean": parts["mean"]}
        elif isinstance(value, dict):
            found |= {f"{name}_{part}": numbers for part, numbers in plain_metrics(value).items()}
        elif isinstance(value, list | tuple):
            found |= {f"{name}_{part}": numbers for part, numbers in plain_metrics(dict(enumerate(value))).items()}
        else:
            found[str(name)] = {"mean": _number(value)}
    return {name: numbers for name, numbers in found.items() if numbers["mean"] is not None}


def _number(value) -> float | int | None:
    """A finite number as it is; None for anything else."""
    value = value.item() if hasattr(value, "item") else value
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def results_block(metrics: dict) -> str:
    """A Markdown table of `metrics`, which may be nested (`plain_metrics`); with a 95 % interval where there is one."""
    rows = ["## Results", "", "| metric | value |", "|---|---|"]
    for name, found in plain_metrics(metrics).items():
        interval = f" ({found['low']:.4g} to {found['high']:.4g})" if "low" in found else ""
        rows.append(f"| {name.replace('_', ' ')} | {found['mean']:.4g}{interval} |")
    return "\n".join(rows)


def card_blocks(model, title: str, usage: Usage | None = None, metrics: dict | None = None, training: dict | None = None) -> dict[str, str]:
    """The blocks of a card: about, usage (where an example was run), results, training, limits, citation."""
    config = model.config
    pictures = task_of(model)[0].endswith(("image-classification", "image-feature-extraction"))
    origin = origin_sentence(model, trained=True if training and training.get("steps") != 0 else None)
    rows = "rows of unit length" if config.weight_norm == "unit" else "rows of any length"
    about = {"title": title, "parts": "pixels" if pictures else "tokens", "origin": origin, "b": config.b, "rows": rows}
    blocks = {"about": ABOUT.format(**about, biases=", biases kept" if config.keep_biases else "")}
    if usage is not None:
        figure = "\n\n![explanation of the example](explanation.png)" if usage.figure else ""
        blocks["usage"] = f"## Use\n\n```python\n{usage.code}\n```\n\nprints\n\n```\n{usage.output}\n```{figure}"
    if metrics and plain_metrics(metrics):
        blocks["results"] = results_block(metrics)
    if training:
        blocks["training"] = "\n".join(["## Training", "", *(f"- {name.replace('_', ' ')}: {value}" for name, value in training.items())])
    kept = "It keeps biases: what they contribute is in the constant, which explains nothing of the input." if config.keep_biases else ""
    citation = CITATION.format(version=__version__) + (REFIT_CITATION if "least-squares refit" in origin else "")
    return {**blocks, "limits": LIMITS.format(constant=f"{kept} {exactness_sentence(model)}".strip()), "citation": citation}


def card_metadata(model, repo_id: str, metrics: dict | None = None, datasets: list[str] | None = None, license: str | None = None) -> dict:
    """The YAML of a card: library, tags, pipeline, base model, licence, data sets, and `metrics` as a model-index of the first data set."""
    config = model.config
    made = {"library_name": "transformers", "pipeline_tag": task_of(model)[0], "tags": ["b-cos", "interpretability", "explainable-ai", config.model_type]}
    made["license"] = license or licence_of(config.base_model)
    if config.base_model is not None:
        made |= {"base_model": config.base_model, "base_model_relation": "finetune"}
    if datasets:
        made["datasets"] = datasets
    metrics = plain_metrics(metrics or {})
    if metrics:
        made["metrics"] = list(metrics)
        data, task = (datasets or ["unknown"])[0], made["pipeline_tag"]
        numbers = {name: value["mean"] for name, value in metrics.items()}
        results = [EvalResult(task, data, data, name, value, metric_name=name.replace("_", " ")) for name, value in numbers.items()]
        made["model-index"] = eval_results_to_model_index(repo_id.split("/")[-1], results)
    return made


def model_card(model, repo_id: str, existing: str | None = None, usage: Usage | None = None, metrics=None, training=None, datasets=None, license=None) -> str:
    """The card of `model`, for `repo_id`; of an `existing` card a person's own text and keys stay."""
    blocks = card_blocks(model, repo_id.split("/")[-1], usage, metrics, training)
    return merged_card(existing, card_metadata(model, repo_id, metrics, datasets, license), blocks)
