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


def _input_x_gradient(model, pixel_values: Tensor, target: int) -> Explanation:
    return replace(input_x_gradient(model, target, pixel_values=pixel_values), weights=None)


# name -> what explains (model, pixel_values [1, C, H, W], class), None where it cannot explain such a model; whether its map is meant to add up to the logit
RIVALS = {
    "Input × gradient": (_input_x_gradient, True),
    "Integrated gradients, 16 steps": (integrated_gradients, True),
    "Grad-CAM": (_grad_cam, False),
}
