"""`bcosify`: a pretrained model as its B-cos twin, refitted where calibration inputs are given, so that it works before
any training."""

import os
from collections.abc import Iterable

from transformers import PreTrainedModel

from bcos_hf import models
from bcos_hf.data.fingerprints import weights_fingerprint
from bcos_hf.models.bcos_normalization import normalization

from .choosing import choose_b
from .inputs import calibration_batches
from .refit import refit_


def bcosify(
    source: str | os.PathLike | PreTrainedModel,
    auto_class: type | None = None,
    calibration: Iterable | None = None,
    processor=None,
    r2_budget: float | None = None,
    refit: dict | None = None,
    **fields,
) -> PreTrainedModel:
    """The B-cos twin of a pretrained model (Arya et al., NeurIPS 2024; Wang et al., TMLR 2025).

    Without calibration the pretrained weights are taken as they are, and the twin is to be fine-tuned. With it each
    layer is fitted once, by least squares, to what the standard layer makes of the same input (`refit_`): the twin
    works at once, without labels or training.

    Args:
        source: a Hub id, a folder, or a loaded transformers model, which is left untouched.
        auto_class: for an id or folder, the class to load it with, by which a head is chosen
            (AutoModelForSequenceClassification, ...). None: the class that the source was saved with.
        calibration: some hundreds of inputs without labels: texts, PIL images, tensors, or batches that the twin takes
            (see `calibration_batches`). None: no refit.
        processor: the tokenizer or image processor for texts and images; None: the one saved with the source.
        r2_budget: choose B for each hidden layer, as high as costs it at most this much of the R^2 that it has at B = 1
            (see `choose_b`).
        refit: settings of `RefitSettings` (ridges, steps, memory_mb, seed, ...).
        **fields: configuration fields to set (b, weight_norm, keep_biases, num_labels, id2label, ...). A refit needs
            weight_norm "none", which it sets.

    Returns:
        The twin, in evaluation mode, in float32 (in the dtype of a loaded model). Its `conversion_report` says what
        became of every layer and tensor, and how good each fit is.

    Raises:
        ValueError: a family or head that is not supported (the message lists what is), a B below 1, calibration inputs
        that do not fit.
        OSError: a folder without weights, or with damaged ones.
    """
    if fields.get("input_encoding") == "add_inverse" and processor is not None:
        own = getattr(processor, "image_processor", processor)
        fields = {"pixels": normalization(own, normalizes=True), **fields}
    if calibration is None:
        if r2_budget is not None or refit is not None:
            raise ValueError("r2_budget, refit: expected calibration inputs beside them, got none.")
        twin = models.bcosify(source, auto_class, **fields)
        twin.conversion_report.weights = weights_fingerprint(twin)
        return twin
    fields = {"weight_norm": "none", **fields}
    standard, missing = models.standard_of(source, auto_class)
    twin = models.twin_of(standard, missing, **fields)
    beside = standard.config._name_or_path if isinstance(source, PreTrainedModel) else source
    batches, pixels = calibration_batches(twin, calibration, processor, beside or None)
    if r2_budget is not None:
        b = choose_b(standard, batches, r2_budget, pixels=pixels, fields=fields)
        twin = models.twin_of(standard, missing, **{**fields, "b": b})
    refit_(twin, standard, batches, pixels, **(refit or {}))
    return twin
