"""How contributions are read off a dynamic linear model in one backward pass.

In explanation mode a network is y = W(x) x + constant, so the gradient of logit k with respect to x is the row [W(x)]_k, and the contribution of
input i is [W(x)]_ki x_i. The constant (kept biases, the logit bias) comes from the same backward pass, through the probe of `explanation_mode`.

Source: Boehle et al., CVPR 2022 (arXiv 2205.10268) section 3.2; Wang et al., TMLR 2025 (arXiv 2502.12992) section 3.
"""

import torch
from torch import Tensor

from .bcos_explanation import Explanation, explained_logits
from .bcos_precision import wide_dtype


def as_classes(name: str, value, logits: Tensor, width: int | None = None) -> Tensor:
    """Class numbers given as an int, a list, or a LongTensor [N] or [N, K], as a LongTensor [N, K].

    One dimension of length N is one class an input; for a single input it may have any length K. Raises a ValueError
    for another shape, a non-integer or a class that does not exist.
    """
    (n, classes), given = logits.shape, value
    try:
        value = torch.as_tensor(value).to(logits.device)
    except (TypeError, ValueError, RuntimeError) as error:  # texts, rows of unequal length, nothing that has numbers
        raise ValueError(
            f"{name}: expected whole numbers: an int, a list or a tensor, of shape [{n}] (one class an input) or [{n}, K]; "
            f"got {str(given)[:80]!r}."
        ) from error
    if value.numel() and (value.dtype == torch.bool or value.is_floating_point() or value.is_complex()):
        raise ValueError(f"{name}: expected whole numbers, got {value.dtype}.")
    value = value.long()
    if value.dim() == 0:
        value = value.expand(n, 1)
    elif value.dim() == 1:
        value = value[None] if n == 1 else value[:, None]
    if value.dim() != 2 or len(value) != n or value.shape[1] < 1:
        shape = tuple(torch.as_tensor(given).shape)
        raise ValueError(f"{name}: expected an int, or shape [{n}] (one class an input) or [{n}, K]; got shape {list(shape)}.")
    if value.min() < 0 or value.max() >= classes:
        raise ValueError(f"{name}: expected classes 0 to {classes - 1}, got {value.min().item()} to {value.max().item()}.")
    if width is not None and value.shape[1] not in (1, width):
        raise ValueError(f"{name}: expected 1 or {width} classes an input (as many as targets), got {value.shape[1]}.")
    return value.expand(n, width or value.shape[1]).contiguous()


def check_finite(name: str, value: Tensor, advice: str = "") -> None:
    """Raise a ValueError if a number of `value` [N, ...] is NaN or infinite, which says of what inputs; `advice` says what to do."""
    if value.numel() and not bool(value.detach().isfinite().all()):
        rows = (~value.detach().isfinite()).flatten(1).any(1).nonzero()[:, 0].tolist()
        which = f"{rows[:10]}{' and more' if len(rows) > 10 else ''}"
        advice = advice or "Look for them in the inputs and the weights; half precision may have overflowed."
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity for inputs {which} of {len(value)}. {advice}")


def asked(logits: Tensor, targets=None, contrast=None) -> tuple[Tensor, Tensor | None, bool]:
    """Targets [N, K], what they are contrasted with, [N, K] or None, and whether that is the mean of all logits; as given to `explained`."""
    targets = as_classes("targets", logits.argmax(-1) if targets is None else targets, logits)
    relative = isinstance(contrast, str)
    if relative and contrast != "mean":
        raise ValueError(f"contrast: expected classes or 'mean', got {contrast!r}.")
    return targets, None if contrast is None or relative else as_classes("contrast", contrast, logits, targets.shape[1]), relative


def explained(logits: Tensor, x: Tensor, probe: Tensor, targets=None, contrast=None, channel_dim: int = -1, chunk: int | None = None) -> Explanation:
    """The explanation of logits [N, C] that were made in explanation mode from the explained input x [N, ...].

    Args:
        logits: each row depends on its own input only.
        x: a leaf that requires grad. probe: zeros [N], as given to `explanation_mode`.
        targets: None (the predicted class), an int, a list, or a tensor [N] or [N, K]. contrast: the same, or "mean".
        channel_dim: the dimension of x that contributions are summed over.
        chunk: how many of the K backward passes run as one batch. None: 8 on an accelerator, 1 on a CPU, whose caches a batch outgrows.

    Raises:
        ValueError: a class that does not exist, or numbers that are not finite.
    """
    check_finite("logits", logits)
    chunk = chunk or (1 if x.device.type == "cpu" else 8)
    targets, contrast, relative = asked(logits, targets, contrast)
    with torch.enable_grad():  # whoever calls may have switched gradients off
        numbers = explained_logits(logits, targets, contrast, relative)
    weights, constant = _rows(numbers, x, probe, chunk)
    dtype = wide_dtype(x)
    contributions = (weights * x.detach()[:, None]).sum(channel_dim if channel_dim < 0 else channel_dim + 1, dtype=dtype)
    check_finite("contributions", contributions)
    check_finite("contributions", constant.to(dtype))
    residual = numbers.detach().to(dtype) - contributions.flatten(2).sum(-1) - constant.to(dtype)
    return Explanation(logits.detach(), targets, contributions, constant.to(dtype), residual, weights, contrast, relative)


def _rows(numbers: Tensor, x: Tensor, probe: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Gradients of numbers [N, K] with respect to x [N, ...] and probe [N], as [N, K, ...] and [N, K]; one forward pass serves all K."""
    n, k = numbers.shape
    made = []
    for start in range(0, k, chunk):
        size = min(chunk, k - start)
        one_hot = torch.zeros(size, n, k, dtype=numbers.dtype, device=numbers.device)
        one_hot[range(size), :, range(start, start + size)] = 1
        batched = size > 1
        grads = torch.autograd.grad(
            numbers, (x, probe), one_hot if batched else one_hot[0], retain_graph=start + size < k, is_grads_batched=batched, allow_unused=True
        )
        made.append([_batch_of(grad, like, size) for grad, like in zip(grads, (x, probe), strict=True)])
    return tuple(torch.cat(parts).movedim(0, 1) for parts in zip(*made, strict=True))


def _batch_of(grad: Tensor | None, like: Tensor, size: int) -> Tensor:
    """A gradient as [size, *like.shape]: unused inputs have None, a single backward pass no batch dimension."""
    return like.new_zeros(size, *like.shape) if grad is None else grad.view(size, *like.shape)
