"""Attention rollout: attention probabilities, with a half for what the residual connection carries past, multiplied through the layers.

Source: Abnar & Zuidema, ACL 2020 (arXiv 2005.00928) section 3. It is one map whatever the class, never negative, and does not add up to the logit.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bcos_hf.models.bcos_explanation import Explanation
from bcos_hf.models.bcos_sharing import sharing
from bcos_hf.models.bcos_text import input_of, last_tokens

from .explained_function import attributed, on_device, unexplained


def _eager(model: nn.Module) -> nn.Module:
    """A copy of `model`, over the same tensors, with attention by formula, whose probabilities can be seen."""
    copy, memo = sharing(model), {}
    for module in copy.modules():
        if hasattr(module, "config"):
            module.config = deepcopy(module.config, memo)
    copy.set_attn_implementation("eager")
    return copy


def rolled_out(attentions: list[Tensor]) -> Tensor:
    """How much of each token's input arrives at each token's output, [N, L, L], of attention probabilities [N, heads, L, L], one tensor a layer."""
    identity = torch.eye(attentions[0].shape[-1], dtype=attentions[0].dtype, device=attentions[0].device)
    flow = identity
    for attention in attentions:
        flow = (attention.mean(1) + identity) / 2 @ flow
    return flow


def attention_rollout(model, targets=None, contrast=None, **inputs: Tensor) -> Explanation:
    """Explain a transformer after the fact, by what arrives at the token that is read: the first, of decoders the last, of pictures without one all.

    Args:
        model, targets, contrast, **inputs: as `input_x_gradient` takes them; of pictures the map is enlarged from patches to pixels.

    Raises:
        ValueError: a model that is no transformer, or gives no attention probabilities.
    """
    inputs = on_device(model, inputs)
    made, _ = unexplained(model, targets, contrast, inputs)
    tower = getattr(model.base_model, "vision_model", model.base_model)
    with torch.no_grad():
        attentions = getattr(_eager(tower)(**inputs, output_attentions=True), "attentions", None)
    if not attentions or attentions[0] is None:
        raise ValueError(f"attention_rollout: expected a transformer that gives its attention probabilities; a {type(tower).__name__} gives none.")
    flow, found = rolled_out(attentions), made.contributions
    if found.dim() == 3:
        decoder, mask = input_of(model.base_model)[1], inputs.get("attention_mask", flow.new_ones(flow.shape[:2]))
        map_ = flow[torch.arange(len(flow)), last_tokens(mask)] if decoder else flow[:, 0]
    else:
        rows, columns = (side // tower.config.patch_size for side in found.shape[-2:])
        special = flow.shape[1] - rows * columns
        map_ = (flow[:, 0] if special else flow.mean(1))[:, special:].unflatten(1, (rows, columns))
        map_ = F.interpolate(map_[:, None], size=found.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    map_ = map_.to(found.dtype)[:, None].expand_as(found).contiguous()
    return attributed(made, map_)
