"""Post-hoc explainers with the call of explain(), for models that are not B-cos."""

from .input_x_gradient import input_x_gradient


__all__ = ["input_x_gradient"]
