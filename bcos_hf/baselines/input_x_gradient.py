"""Input x gradient at the output of the embedding layer, where B-cos text models are explained too.

Source: Shrikumar et al., 2016 (arXiv 1605.01713). What it does not add up to is in `residual`.
"""

import torch
from torch import Tensor

from bcos_hf.models.bcos_explanation import Explanation, explained


def input_x_gradient(model, targets=None, contrast=None, **inputs: Tensor) -> Explanation:
    """Explain a transformers sequence classifier after the fact.

    Args:
        model: a sequence classifier with `base_model.embeddings`, in evaluation mode. targets, contrast: as in `explain`.
        **inputs: input_ids [N, L], attention_mask [N, L], ...
    """
    leaf = []

    def cut(module, args, output: Tensor) -> Tensor:
        leaf.append(output.detach().requires_grad_())
        return leaf[0]

    hook = model.base_model.embeddings.register_forward_hook(cut)
    try:
        with torch.enable_grad():
            logits = model(**inputs).logits
    finally:
        hook.remove()
    return explained(logits, leaf[0], torch.zeros(len(logits), device=logits.device, requires_grad=True), targets, contrast)
