"""Adaptive gradient clipping: a unit's gradient is at most a small multiple of its weight,

    G_i <- clipping max(|W_i|, eps) / |G_i| * G_i    where |G_i| > clipping max(|W_i|, eps)

with the Frobenius norm over what a unit (an output channel) sees. The class logits' layer is left out.

Source: Brock et al., ICML 2021 (arXiv 2102.06171) section 4.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from transformers import TrainerCallback


# names of the layers that make class logits, in transformers and here
LOGIT_LAYERS = ("classifier", "linear_head.linear", "cls_classifier", "distillation_classifier")


def unit_norm(x: Tensor) -> Tensor:
    """Norm of each unit, in float32 at least: [out, ...] -> [out, 1, ...]; a vector or scalar (bias, scale) is one unit: -> [1] or []."""
    dims = tuple(range(1, x.dim())) or None
    return torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))


@torch.no_grad()
def adaptive_clip_grad_(parameters: Iterable[Tensor], clipping: float = 0.01, eps: float = 1e-3) -> None:
    """Clip the gradients of `parameters` in place; those without a gradient are passed over.

    Args:
        clipping: largest |G_i| / |W_i|. eps: least |W_i|, so that a unit of zeros can learn.

    Raises:
        ValueError: one of the two is not positive.
    """
    if not (clipping > 0 and eps > 0):
        raise ValueError(f"adaptive_clip_grad_: expected clipping > 0 and eps > 0, got {clipping!r} and {eps!r}.")
    for parameter in parameters:
        if parameter.grad is None:
            continue
        largest = clipping * unit_norm(parameter).clamp_min(eps)
        norm = unit_norm(parameter.grad)
        factor = torch.where(norm > largest, largest / norm, 1.0)
        parameter.grad.mul_(factor.to(parameter.grad.dtype))


def clipped_parameters(model: nn.Module, left_out: Iterable[str] = LOGIT_LAYERS) -> list[nn.Parameter]:
    """The trainable parameters of `model` but those of modules called as in `left_out`. Raises a ValueError if there is no such module."""
    kept = {name: p for name, p in model.named_parameters() if not any(f".{layer}." in f".{name}" for layer in left_out)}
    if left_out and len(kept) == sum(1 for _ in model.parameters()):
        found = sorted({name.rpartition(".")[0] for name in kept})
        raise ValueError(f"adaptive clipping: expected logits made by one of {tuple(left_out)}, found only {found}. Say which with left_out.")
    return [parameter for parameter in kept.values() if parameter.requires_grad]


class AdaptiveClippingCallback(TrainerCallback):
    """`adaptive_clip_grad_` before every optimiser step of a Trainer, on the whole step's gradients, unscaled (Trainer has taken their norm by then).

    Set max_grad_norm=0 to have no other clipping. Sharded parameters are not supported.
    """

    def __init__(self, clipping: float = 0.01, eps: float = 1e-3, left_out: Iterable[str] = LOGIT_LAYERS) -> None:
        self.clipping, self.eps, self.left_out = clipping, eps, tuple(left_out)

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        """Find the parameters."""
        self.parameters = clipped_parameters(model, self.left_out)

    def on_pre_optimizer_step(self, args, state, control, **kwargs) -> None:
        """Clip."""
        adaptive_clip_grad_(self.parameters, self.clipping, self.eps)
