"""What a fit minimizes: how far a layer's output is from its target after what follows it, f(y + s) r against f(t + s)
r.

f is the activation, s what is added before it (a residual, a shortcut), r what the activation is multiplied with in a
    gated MLP. What a ReLU cuts off need not be met, what it lets through must be, and the same holds, softly, for GELU
    and SiLU.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor


WAKE = 0.1  # least slope, in parts of the secant's, with which an output that the activation cuts off is pulled to its target


@dataclass
class Objective:
    """Of one part of the rows; all [groups, rows, O] but for `weight`.

    Attributes:
        target: t, what the layer is to give. goal: f(t + s) r, of the standard model's own activation.
        weight: how much each row counts, [1, rows, 1], mean 1. added: s, None where nothing is. factor: r, None where
            there is none.
        activation: f of the twin; None: the identity.
    """

    target: Tensor
    goal: Tensor
    weight: Tensor | None = None
    added: Tensor | None = None
    factor: Tensor | None = None
    activation: Callable[[Tensor], Tensor] | None = None

    def take(self, rows: Tensor) -> "Objective":
        """Of some of the rows."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Objective(
            **{name: value[:, rows] if isinstance(value, Tensor) else value for name, value in values.items()}
        )

    def output(self, y: Tensor) -> Tensor:
        """f(y + s) r."""
        y = y if self.added is None else y + self.added
        y = y if self.activation is None else self.activation(y)
        return y if self.factor is None else y * self.factor

    def mean(self, values: Tensor) -> Tensor:
        """The weighted mean over rows, [groups, 1, O]."""
        return (values if self.weight is None else values * self.weight).mean(1, keepdim=True)

    def loss(self, y: Tensor) -> Tensor:
        """Mean squared error of each unit, [groups, 1, O]."""
        return self.mean((self.output(y) - self.goal).square_())

    def variance(self) -> Tensor:
        """Mean squared deviation of each unit's goal from its mean, [groups, 1, O]: what R^2 is measured by."""
        return self.mean((self.goal - self.mean(self.goal)).square_())

    def error_and_slope(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The error of each output, and by which slope it follows y."""
        if self.activation is None:
            error = self.output(y) - self.goal
            return error, torch.ones_like(y) if self.factor is None else self.factor
        with torch.enable_grad():
            leaf = y.detach().requires_grad_()
            output = self.output(leaf)
            (slope,) = torch.autograd.grad(output.sum(), leaf)
        error = output.detach() - self.goal
        gap = y - self.target
        secant = torch.where(gap.abs() > 1e-6, error / gap, slope)
        floor = WAKE * secant
        return error, torch.where(slope.abs() < floor.abs(), floor, slope)
