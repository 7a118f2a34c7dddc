"""Post-hoc explanations of a conventional classifier of pictures, to be shown beside the B-cos model's."""

from dataclasses import replace

import torch
from torch import Tensor

from bcos_hf.baselines import grad_cam, input_x_gradient
from bcos_hf.models.bcos_explanation import Explanation


def integrated_gradients(model, pixel_values: Tensor, target: int, steps: int = 16) -> Explanation:
    """Integrated gradients of one picture [1, C, H, W] on the straight way from 0 (the mean colour), by the midpoint rule; 0's logit is the constant.

    The gradient at a part a of the way times the picture is input x gradient there, over a. Source: Sundararajan et al., ICML 2017 (arXiv 1703.01365).
    """
    parts = ((step + 0.5) / steps for step in range(steps))
    total = sum(input_x_gradient(model, target, pixel_values=part * pixel_values).contributions / part for part in parts)
    made = input_x_gradient(model, target, pixel_values=pixel_values)
    contributions, constant = total / steps, model(pixel_values=torch.zeros_like(pixel_values)).logits[:, [target]].detach()
    return replace(
        made, contributions=contributions, constant=constant, weights=None, residual=made.explained_logits - contributions.flatten(2).sum(-1) - constant
    )


def _grad_cam(model, pixel_values: Tensor, target: int) -> Explanation | None:
    try:
        return grad_cam(model, pixel_values, target)
    except ValueError:  # no CNN
        return None


# name -> model, pixel_values [1, C, H, W], class -> Explanation, or None where the model is not of the kind that it explains
RIVALS = {
    "Input × gradient": lambda model, pixel_values, target: replace(input_x_gradient(model, target, pixel_values=pixel_values), weights=None),
    "Integrated gradients": integrated_gradients,
    "Grad-CAM": _grad_cam,
}
