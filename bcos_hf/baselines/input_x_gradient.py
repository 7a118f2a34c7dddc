"""Input x gradient, where B-cos models are explained too: at the pixels, or at what the first layer of a language model reads.

Source: Shrikumar et al., 2016 (arXiv 1605.01713). What it does not add up to is in `residual`.
"""

from contextlib import nullcontext

import torch
from torch import Tensor

from bcos_hf.models.bcos_class_names import asked_labels, names_of
from bcos_hf.models.bcos_explaining import explained
from bcos_hf.models.bcos_explanation import Explanation
from bcos_hf.models.bcos_sharing import sharing
from bcos_hf.models.bcos_text import input_of
from bcos_hf.models.modeling_bcos import leaf_at

from .explained_function import logits_of, on_device


def input_x_gradient(model, targets=None, contrast=None, **inputs: Tensor) -> Explanation:
    """Explain a transformers classifier of pictures or texts after the fact.

    Args:
        model: in evaluation mode; of a causal language model the next token is explained. targets, contrast: as in `explain`.
        **inputs: pixel_values [N, C, H, W]; or input_ids [N, L], attention_mask [N, L], ..., on any device.
    """
    model, inputs = sharing(model), on_device(model, inputs)
    pixel_values = inputs.get("pixel_values")
    if pixel_values is not None:
        inputs["pixel_values"] = leaf = pixel_values.detach().clone().requires_grad_()
    with torch.enable_grad(), nullcontext([leaf]) if pixel_values is not None else leaf_at(*input_of(model.base_model)) as leaves:
        logits = logits_of(model, inputs)
    probe = torch.zeros(len(logits), device=logits.device, requires_grad=True)
    asked = asked_labels(targets, contrast, names_of(model, logits.shape[1]))
    made = explained(logits, leaves[0], probe, *asked, channel_dim=-1 if pixel_values is None else 1)
    made.pixel_values = pixel_values
    return made
