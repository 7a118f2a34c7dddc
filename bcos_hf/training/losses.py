"""The losses of B-cos networks, by what the labels are: every logit is evidence for its own class, so that classes are learned by binary cross entropy.

Source: Boehle et al., TPAMI 2024 (arXiv 2306.10898) section 4; off-labels of 1/C: Arya et al., NeurIPS 2024 (arXiv 2411.00715) appendix; smoothed labels:
Szegedy et al., CVPR 2016 (arXiv 1512.00567) section 7.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


CLASSES, SEVERAL, NUMBERS = PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
OFF_LABELS = ("zero", "uniform")


def problem_of(logits: Tensor, labels: Tensor, problem_type: str | None = None) -> str:
    """Which of PROBLEM_TYPES the labels are for: the one that is given, or, as in transformers, the one that their shape and dtype say.

    Args:
        logits: [..., C]. labels: [...] or [..., C]. problem_type: of the model's configuration.

    Raises:
        ValueError: a problem type that there is not.
    """
    if problem_type not in (None, *PROBLEM_TYPES):
        raise ValueError(f"problem_type: expected None or one of {PROBLEM_TYPES}, got {problem_type!r}.")
    if problem_type is not None:
        return problem_type
    if logits.dim() == 2 and logits.shape[-1] == 1:
        return NUMBERS
    return SEVERAL if labels.shape == logits.shape and not labels.is_floating_point() else CLASSES


def bcos_loss(logits: Tensor, labels: Tensor, off_labels: str = "zero", problem_type: str | None = None, smoothing: float = 0.0) -> Tensor:
    """The mean loss of a batch, by the kind of its labels: `bce_loss` of one class or of several, or the mean squared error of numbers.

    Args:
        logits: [..., C]. off_labels: as of `bce_loss`. problem_type: as of `problem_of`.
        labels: of one class, [...] class numbers, -100 is not counted, or [..., C] floats in [0, 1] (soft labels); of several, [..., C] in [0, 1], whole
            numbers or floats; numbers to be predicted, [N] (C = 1) or [N, C].
        smoothing: the target is (1 - smoothing) of what the labels say and smoothing / C; of one class alone.

    Raises:
        ValueError: labels that the problem cannot have, or settings that do not go with it.
    """
    problem = problem_of(logits, labels, problem_type)
    if problem != CLASSES and (smoothing or off_labels == "uniform"):
        what = f"label_smoothing_factor {smoothing}" if smoothing else "off_labels 'uniform'"
        raise ValueError(f"{what}: expected labels of one class an input, which share their weight with the other classes; this is {problem}. Leave it out.")
    if problem == NUMBERS:
        return _squared_error(logits, labels)
    if problem == SEVERAL:
        if labels.shape != logits.shape:
            raise ValueError(f"labels: expected shape {list(logits.shape)}, a 0 or 1 for each class of {problem}, got {list(labels.shape)}.")
        labels = labels.float()
    elif labels.shape == logits.shape and not labels.is_floating_point():
        raise ValueError(f"labels: expected class numbers {list(logits.shape[:-1])} or soft labels (floats), got {labels.dtype} of shape {list(labels.shape)}.")
    return bce_loss(logits, labels, off_labels, smoothing=smoothing)


def _squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    single = logits.shape[-1] == 1 and labels.shape == logits.shape[:-1]
    if logits.dim() != 2 or not (single or labels.shape == logits.shape):
        expected = f"{list(logits.shape)}" + (f" or {list(logits.shape[:-1])}" if logits.shape[-1] == 1 else "")
        raise ValueError(f"labels: expected numbers of shape {expected}, one for each output of a regression, got {list(labels.shape)}.")
    target = labels.float().view_as(logits)
    if not target.isfinite().all():
        raise ValueError("labels: expected finite numbers for a regression, got NaN or infinity.")
    return F.mse_loss(logits.float(), target)


def bce_loss(logits: Tensor, labels: Tensor, off_labels: str = "zero", num_items: int | Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Mean binary cross entropy over classes and counted rows.

    Args:
        logits: [..., C]. labels: [...] class numbers, -100 is not counted; or [..., C] floats in [0, 1] (multi-label, soft labels).
        off_labels: "zero", or "uniform" for 1/C at the classes that are not the label.
        num_items: rows to divide by, where this batch is one of several that make a step; None: the rows of this one.
        smoothing: in [0, 1]; share of the target that all classes have alike, smoothing / C each.

    Raises:
        ValueError: a label that is no class, another `off_labels` or `smoothing`, shapes that differ.
    """
    if off_labels not in OFF_LABELS:
        raise ValueError(f"off_labels: expected 'zero' or 'uniform', got {off_labels!r}.")
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing: expected a number from 0 to 1, got {smoothing!r}.")
    classes = logits.shape[-1]
    logits = logits.float()
    if labels.shape == logits.shape and labels.is_floating_point():
        target = labels.float().reshape(-1, classes)
        logits = logits.reshape(-1, classes)
        if not ((target >= 0) & (target <= 1)).all():
            raise ValueError(f"labels: expected numbers from 0 to 1 for each class, got {target.min().item():g} to {target.max().item():g}.")
    else:
        if labels.shape != logits.shape[:-1]:
            raise ValueError(f"labels: expected shape {list(logits.shape[:-1])} for logits {list(logits.shape)}, got {list(labels.shape)}.")
        if labels.is_floating_point():
            raise ValueError(
                f"labels: expected class numbers (whole numbers) for {classes} classes, got {labels.dtype}. Convert them, or, if they are numbers to be "
                "predicted, set the model's num_labels to 1 or its problem_type to 'regression'."
            )
        counted = labels != -100
        logits, labels = logits[counted], labels[counted]
        if labels.numel() and (labels.min() < 0 or labels.max() >= classes):
            low, high = labels.min().item(), labels.max().item()
            raise ValueError(f"labels: expected classes 0 to {classes - 1} (num_labels={classes}), got {low} to {high}.")
        target = F.one_hot(labels.long(), classes).to(logits.dtype)
    if smoothing:
        target = (1 - smoothing) * target + smoothing / classes
    if off_labels == "uniform":
        target = target.clamp_min(1 / classes)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / classes
    return loss / torch.clamp_min(torch.as_tensor(len(target) if num_items is None else num_items, device=loss.device), 1)
