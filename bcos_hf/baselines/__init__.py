"""Post-hoc explainers with the call of explain(), for models that are not B-cos; `BASELINES` has them by name."""

from functools import partial

from .attention_rollout import attention_rollout
from .captum_methods import METHODS, captum_explanation
from .grad_cam import grad_cam
from .input_x_gradient import input_x_gradient
from .random_explanation import random_explanation


BASELINES = {
    "input_x_gradient": input_x_gradient,
    **{method: partial(captum_explanation, method) for method in METHODS},
    "grad_cam": grad_cam,
    "attention_rollout": attention_rollout,
    "random": random_explanation,
}

__all__ = ["BASELINES", "attention_rollout", "captum_explanation", "grad_cam", "input_x_gradient", "random_explanation"]
