"""The one switch of a dynamic linear network: explanation mode.

A B-cos network computes y = W(x) x, where W(x) is a product of linear maps and input-dependent *factors* (the cosine factor of a B-cos layer,
the deviation of a norm, the gate of an activation, the attention probabilities). In explanation mode every such factor is a constant for
autograd, so that one backward pass gives a row of W(x). The mode never changes a forward value.

Source: Boehle et al., B-cos Networks, CVPR 2022 (arXiv 2205.10268), section 3.2.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class _Mode(threading.local):
    """What this thread explains: layer -> probe. A thread's own, so that others predict as ever; torch.compile traces and guards it, unlike a ContextVar."""

    probes: dict[nn.Module, Tensor | None] | None = None


_mode = _Mode()


class Dynamic(nn.Module):
    """Base of every layer that has an input-dependent factor or an additive constant."""

    @property
    def explaining(self) -> bool:
        """Whether this thread is in an explanation mode of this layer."""
        probes = _mode.probes
        return probes is not None and self in probes

    def with_constant(self, output: Tensor, constant: Tensor | None) -> Tensor:
        """Make the additive `constant` (already inside `output`) visible to the probe of the running explanation, if there is one.

        The probe is a zero per sample, [N]. Adding constant * probe changes no value, and the derivative with respect to the probe is what
        the constant contributes: the share of a prediction that no input explains, computed on its own and not as a remainder.
        """
        probe = _mode.probes[self] if self.explaining else None
        if probe is None or constant is None:
            return output
        return output + constant * probe.to(output.dtype).view(-1, *[1] * (output.dim() - 1))


@contextmanager
def explanation_mode(model: nn.Module, probe: Tensor | None = None) -> Iterator[nn.Module]:
    """Hold every dynamic factor of `model` constant for autograd, for the forward passes that this thread makes inside.

    Nestable and restored on error; no module is touched, so that other threads predict and explain with the same model meanwhile.

    Args:
        model: any module with `Dynamic` layers.
        probe: zeros of shape [N] that require grad; collects what biases and other constants contribute to each sample.
    """
    outer = _mode.probes
    _mode.probes = {**(outer or {}), **{module: probe for module in model.modules() if isinstance(module, Dynamic)}}
    try:
        yield model
    finally:
        _mode.probes = outer


class _Carry(torch.autograd.Function):
    """The value of one tensor with the derivative of another."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, linear: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, grad: Tensor):
        return None, grad


def carry(value: Tensor, linear: Tensor) -> Tensor:
    """`value` (what the layer computes) whose derivative is that of `linear` (the same number, with its factors held constant).

    A fused kernel and the formula written out differ in the last bit; this keeps the forward value of explanation mode bit-equal.
    """
    return _Carry.apply(value.detach(), linear)
