"""A model of its own for each explanation: the modules are copied, the tensors shared.

An explanation needs evaluation mode, hooks, and parameters without gradients. All three belong to modules, which other threads predict, explain or train
with at the same time. So it gets modules of its own, which costs about as much as to walk over them, and nothing has to be put back.
"""

from functools import partial
from types import MethodType

from torch import nn


def sharing(model: nn.Module) -> nn.Module:
    """A copy of `model` in evaluation mode whose tensors are those of `model`; none requires grad, and setting modes, flags or hooks of it changes no other."""
    originals = list(model.modules())
    copies = {original: _blank(original) for original in originals}
    for original, copy in copies.items():
        copy._modules = {name: copies.get(child) for name, child in original._modules.items()}
        for name, value in original.__dict__.items():
            if isinstance(value, nn.Module) and value in copies:
                copy.__dict__[name] = copies[value]
            elif callable(value):
                copy.__dict__[name] = _bound_to(value, copies)
    return copies[model]


def _blank(original: nn.Module) -> nn.Module:
    """The module with parameters and hooks of its own, and the children of the original."""
    copy = object.__new__(type(original))
    hooks = {
        name: value.copy()
        for name, value in original.__dict__.items()
        if name.endswith(("_hooks", "_with_kwargs", "_always_called"))
    }
    copy.__dict__.update({**original.__dict__, **hooks, "training": False, "_compiled_call_impl": None})
    copy._parameters = {name: _frozen(parameter) for name, parameter in original._parameters.items()}
    copy._buffers = dict(original._buffers)
    return copy


def _frozen(parameter: nn.Parameter | None) -> nn.Parameter | None:
    """A parameter without gradient over the same numbers."""
    if parameter is None or not parameter.requires_grad:
        return parameter
    return nn.Parameter(parameter.detach(), requires_grad=False)


def _bound_to(function, copies: dict[nn.Module, nn.Module]):
    """A function that others have bound to a module, as accelerate and torch.compile bind its forward, bound to the copy; uncompiled."""
    function = getattr(function, "_torchdynamo_orig_callable", function)
    if isinstance(function, MethodType) and isinstance(function.__self__, nn.Module):
        return MethodType(function.__func__, copies.get(function.__self__, function.__self__))
    if isinstance(function, partial):
        parts = [copies.get(part, part) if isinstance(part, nn.Module) else part for part in function.args]
        return partial(_bound_to(function.func, copies), *parts, **function.keywords)
    return function
