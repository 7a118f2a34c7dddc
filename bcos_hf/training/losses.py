"""Binary cross entropy over one-hot labels, the loss of B-cos networks: every logit is evidence for its own class.

Source: Boehle et al., TPAMI 2024 (arXiv 2306.10898) section 4; off-labels of 1/C: Arya et al., NeurIPS 2024 (arXiv 2411.00715) appendix.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def bce_loss(logits: Tensor, labels: Tensor, off_labels: str = "zero", num_items: int | Tensor | None = None) -> Tensor:
    """Mean binary cross entropy over classes and counted rows.

    Args:
        logits: [..., C]. labels: [...] class numbers, -100 is not counted; or [..., C] in [0, 1] (multi-label).
        off_labels: "zero", or "uniform" for 1/C at the classes that are not the label.
        num_items: rows to divide by, where this batch is one of several that make a step; None: the rows of this one.

    Raises:
        ValueError: a label that is no class, another `off_labels`, shapes that differ.
    """
    if off_labels not in ("zero", "uniform"):
        raise ValueError(f"off_labels: expected 'zero' or 'uniform', got {off_labels!r}.")
    classes = logits.shape[-1]
    logits = logits.float()
    if labels.shape == logits.shape and labels.is_floating_point():
        target = labels.float().view(-1, classes)
        logits = logits.view(-1, classes)
    else:
        if labels.shape != logits.shape[:-1]:
            raise ValueError(f"labels: expected shape {list(logits.shape[:-1])} for logits {list(logits.shape)}, got {list(labels.shape)}.")
        counted = labels != -100
        logits, labels = logits[counted], labels[counted]
        if labels.numel() and (labels.min() < 0 or labels.max() >= classes):
            low, high = labels.min().item(), labels.max().item()
            raise ValueError(f"labels: expected classes 0 to {classes - 1} (num_labels={classes}), got {low} to {high}.")
        target = F.one_hot(labels.long(), classes).to(logits.dtype)
    if off_labels == "uniform":
        target = target.clamp_min(1 / classes)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / classes
    return loss / torch.clamp_min(torch.as_tensor(len(target) if num_items is None else num_items, device=loss.device), 1)
