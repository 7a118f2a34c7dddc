"""Which module is to blame where contributions do not add up: each is held to y = J x + constant on its own.

In explanation mode a dynamic linear module gives y = J x + c, with its Jacobian J and what its constants contribute, c. So for a random cotangent v the
numbers <v, y> and <J^T v, x> + <v, c> are the same. An attention whose probabilities keep their gradient, a product of two branches, or an activation
that is no gate breaks this where it stands, whatever lies around it.
"""

import threading
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from .bcos_dynamic import explanation_mode
from .bcos_explanation import Explanation, residual_of
from .bcos_sharing import sharing


# largest relative error that is rounding, of a module and of a whole model
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
HALF_PRECISION = 0.1
WHOLE = "(the whole model)"
DRAWS = 2  # random cotangents: one may happen to be orthogonal to an error


@dataclass
class Verification:
    """How exact the explanations of a model are, module by module. `str()` is a table of what is to blame.

    Attributes:
        errors: module name -> relative error |<v, y> - <J^T v, x> - <v, c>|; 1 is as large as the output itself. "(the whole model)" is the residual of
            an explanation, relative to its contributions.
        blamed: names of the modules that are to blame: they are not exact though all that they are made of is. Mend these, and verify again.
        tolerance: up to which an error is rounding.
    """

    errors: dict[str, float]
    blamed: list[str]
    tolerance: float

    @property
    def exact(self) -> bool:
        """Whether nothing is to blame."""
        return not self.blamed

    @property
    def worst(self) -> float:
        """The largest error."""
        return max(self.errors.values())

    def __str__(self) -> str:
        if self.exact:
            return f"exact: {len(self.errors)} modules, largest relative error {self.worst:.1e}"
        lines = [
            f"not exact: of {len(self.errors)} modules, to blame are (relative error, up to {self.tolerance:g} is rounding)"
        ]
        return "\n".join([*lines, *(f"  {name}: {self.errors[name]:.2g}" for name in self.blamed)])


def verify(model: nn.Module, **inputs) -> Verification:
    """Explain inputs, and compare each module's output with (Jacobian transposed on a random cotangent) . input + constant.

    It costs some explanations; one short input is enough. The model is left as found.

    Args:
        model: a B-cos model with `explain`.
        **inputs: as `explain` takes them.

    Returns:
        The relative error of every module that what is explained goes through, and which of them are to blame.

    Raises:
        ValueError, TypeError: as `explain` does.
    """
    watched, errors = sharing(model), {}
    roles = model._roles
    for name, module in watched.named_modules():
        if name and roles.converts(name):
            module.register_forward_hook(_Check(name, errors), with_kwargs=True)
    made = watched.explain(**inputs)
    text_tower(watched, inputs)
    tolerance = tolerance_of(model, made)
    errors = {name: error for name, error in errors.items() if error is not None}
    errors[WHOLE] = residual_of(made)
    return Verification(errors, _to_blame(errors, tolerance), tolerance)


def tolerance_of(model: nn.Module, made: Explanation) -> float:
    """Up to which relative error an explanation of a model is off by rounding."""
    dtype = made.explained_logits.dtype if model.dtype == torch.float64 else model.dtype
    return TOLERANCE.get(dtype, HALF_PRECISION)


def text_tower(watched: nn.Module, inputs: dict) -> None:
    """Explain the texts of a model with two B-cos towers, too."""
    if getattr(watched.config, "convert_text", False) and inputs.get("input_ids") is not None:
        with torch.no_grad():
            embeds = watched.image_embeds(inputs["pixel_values"].to(watched.device, watched.dtype))
        watched.explain_text(inputs["input_ids"], embeds, inputs.get("attention_mask"))


def _to_blame(errors: dict[str, float], tolerance: float) -> list[str]:
    wrong = [name for name, error in errors.items() if not error <= tolerance and name != WHOLE]
    innermost = [name for name in wrong if not any(other.startswith(f"{name}.") for other in wrong)]
    return sorted(innermost) or ([] if errors[WHOLE] <= tolerance else [WHOLE])


class _Check:
    """A forward hook that runs its module once more, alone, and keeps its largest error."""

    running = threading.local()

    def __init__(self, name: str, errors: dict[str, float | None]) -> None:
        self.name, self.errors = name, errors

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict, output) -> None:
        given, spec = tree_flatten((args, kwargs))
        places = [place for place, value in enumerate(given) if isinstance(value, Tensor) and value.requires_grad]
        if not places or getattr(self.running, "on", False) or getattr(module, "partly_constant", False):
            return
        self.running.on = True
        try:
            error = _error_of(module, given, places, spec)
        finally:
            self.running.on = False
        if error is not None:
            self.errors[self.name] = max(error, self.errors.get(self.name, 0.0))


def _error_of(module: nn.Module, given: list, places: list[int], spec) -> float | None:
    """The relative error of a module for the arguments `given`, of which those at `places` depend on the input; None where its output is a constant factor."""
    leaves = [given[place].detach().requires_grad_() for place in places]
    given = list(given)
    for place, leaf in zip(places, leaves, strict=True):
        given[place] = leaf.view_as(leaf)  # a leaf could not be written to in place
    probe = torch.zeros(1, device=leaves[0].device, dtype=leaves[0].dtype, requires_grad=True)
    args, kwargs = tree_unflatten(given, spec)
    with explanation_mode(module, probe):
        made = [
            part for part in tree_flatten(module(*args, **kwargs))[0] if isinstance(part, Tensor) and part.requires_grad
        ]
    if not made or not any(grad is not None for grad in _pulled_back(made, [torch.ones_like(y) for y in made], leaves)):
        return None
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for _ in range(DRAWS):
        cotangents = [torch.randint(2, y.shape, generator=generator).to(y).mul_(2).sub_(1) for y in made]
        *grads, constant = _pulled_back(made, cotangents, [*leaves, probe])
        outputs = [(y.detach() * v).double() for y, v in zip(made, cotangents, strict=True)]
        inputs = [(x.detach() * grad).double() for x, grad in zip(leaves, grads, strict=True) if grad is not None]
        constant = 0.0 if constant is None else constant.double().item()
        difference = sum(part.sum() for part in outputs) - sum(part.sum() for part in inputs) - constant
        scale = max(sum(part.square().sum() for part in parts).sqrt().item() for parts in (outputs, inputs))
        worst = max(worst, abs(difference.item()) / max(scale, torch.finfo(torch.float32).tiny))
    return worst


def _pulled_back(outputs: list[Tensor], cotangents: list[Tensor], inputs: list[Tensor]) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(outputs, inputs, cotangents, retain_graph=True, allow_unused=True)
