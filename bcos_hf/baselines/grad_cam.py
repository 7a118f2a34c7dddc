"""Grad-CAM: the last map of a CNN, its channels weighted by their mean gradient, what speaks for the class kept, and enlarged to the picture.

Source: Selvaraju et al., ICCV 2017 (arXiv 1610.02391) section 3. It does not add up to the logit; the difference is in `residual`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from bcos_hf.models.bcos_class_names import asked_labels, names_of
from bcos_hf.models.bcos_explaining import explained
from bcos_hf.models.bcos_explanation import Explanation
from bcos_hf.models.bcos_sharing import sharing

from .explained_function import attributed


def grad_cam(model, pixel_values: Tensor | None = None, targets=None, contrast=None, **inputs) -> Explanation:
    """Explain a transformers CNN classifier after the fact.

    Args:
        model: in evaluation mode, with a `base_model` whose `last_hidden_state` is a map [N, D, h, w].
        pixel_values: [N, C, H, W], on any device. targets, contrast: as in `explain`. **inputs: what the model takes besides.

    Returns:
        An Explanation with contributions [N, K, H, W] >= 0.

    Raises:
        ValueError: no pictures, or a model whose last hidden state is no map (a transformer).
    """
    if pixel_values is None:
        raise ValueError(f"grad_cam: expected pixel_values [N, C, H, W], got {sorted(inputs)}; it explains CNNs only.")
    model, pixel_values, maps = sharing(model), pixel_values.to(model.device), []
    model.base_model.register_forward_hook(lambda module, args, output: maps.append(getattr(output, "last_hidden_state", output[0])))
    with torch.enable_grad():
        logits = model(pixel_values=pixel_values.detach().clone().requires_grad_(), **inputs).logits
    hidden = maps[0]
    if hidden.dim() != 4:
        raise ValueError(f"grad_cam: expected a CNN, whose last hidden state is a map [N, D, h, w]; that of a {type(model).__name__} is {list(hidden.shape)}.")
    probe = torch.zeros(len(logits), device=logits.device, requires_grad=True)
    asked = asked_labels(targets, contrast, names_of(model, logits.shape[1]))
    made = explained(logits, hidden, probe, *asked, channel_dim=1)
    cam = (made.weights.mean((-2, -1), keepdim=True) * hidden.detach()[:, None]).sum(2).relu()
    cam = F.interpolate(cam, size=pixel_values.shape[-2:], mode="bilinear", align_corners=False)
    made.pixel_values = pixel_values
    return attributed(made, cam)
