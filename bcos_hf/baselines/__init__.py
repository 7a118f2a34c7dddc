"""Post-hoc explainers with the call of explain(), for models that are not B-cos."""

from .grad_cam import grad_cam
from .input_x_gradient import input_x_gradient
from .random_explanation import random_explanation


__all__ = ["grad_cam", "input_x_gradient", "random_explanation"]
