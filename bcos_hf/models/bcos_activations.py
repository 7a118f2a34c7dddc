"""Activations as gates: f(x) = x * (f(x) / x), the quotient held constant in explanation mode.

It works for every f with f(0) = 0: the GELUs, SiLU, tanh, ReLU. At x = 0 the gate is set to 0, which changes no contribution (the input is 0).
ReLU needs no help, its derivative is its gate; it is listed so that a conversion can say so.

Source: Boehle et al., TPAMI 2024 (arXiv 2306.10898) section 3.2; Wang et al., TMLR 2025 (arXiv 2502.12992) section 3.
"""

import torch
from torch import Tensor, nn
from transformers import activations

from .bcos_dynamic import Dynamic, carry


class Gate(Dynamic):
    """Mixed in before an activation class."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if not self.explaining:
            return y
        with torch.no_grad():
            gate = (y / x).masked_fill_(x == 0, 0)
        return carry(y, x * gate)


class Factor(Dynamic):
    """Mixed in before the activation of a gated MLP, act(gate(x)) * up(x): the whole of it is a dynamic factor."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y.detach() if self.explaining else y


_ACTIVATIONS = (
    activations.GELUActivation,
    activations.NewGELUActivation,
    activations.FastGELUActivation,
    activations.QuickGELUActivation,
    activations.AccurateGELUActivation,
    activations.ClippedGELUActivation,
    activations.GELUTanh,
    activations.SiLUActivation,
    activations.MishActivation,
    activations.ReLUSquaredActivation,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.Tanh,
)


def _twins(mixin: type[nn.Module], prefix: str) -> dict[type[nn.Module], type[nn.Module]]:
    """Activation class -> its twin with `mixin`; module-level names, so that a converted model can be pickled."""
    made = {}
    for cls in _ACTIVATIONS:
        name = f"{prefix}{cls.__name__}"
        made[cls] = globals()[name] = type(name, (mixin, cls), {"__module__": __name__, "__doc__": f"{cls.__name__}: see {mixin.__name__}."})
    return made


GATES = _twins(Gate, "Gated")
FACTORS = _twins(Factor, "Factor")

LINEAR_ACTIVATIONS = (nn.ReLU, nn.Identity, activations.LinearActivation)


def gated(activation: nn.Module, whole: bool = False) -> nn.Module:
    """The twin of `activation`, made in place: a gate, or the `whole` a factor. A ValueError for what is no gate (sigmoid, laplace: f(0) is not 0)."""
    if type(activation) in LINEAR_ACTIVATIONS or isinstance(activation, Gate | Factor):
        return activation
    if type(activation) not in GATES:
        known = sorted(cls.__name__ for cls in (*GATES, *LINEAR_ACTIVATIONS))
        raise ValueError(f"activation: expected one that is a gate, f(x) = x * gate(x), namely {known}; got {type(activation).__name__}.")
    activation.__class__ = (FACTORS if whole else GATES)[type(activation)]
    return activation
