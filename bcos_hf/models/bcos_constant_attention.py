"""Scaled dot-product attention whose probabilities are constants: a backward pass for the values alone.

Where queries and keys need no gradient, torch's fused CPU kernel still makes theirs, three of its five products, and throws them away. A mode catches the
call whoever makes it, so that no attention code is copied; forward values are the kernel's own.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .bcos_precision import wide


class ConstantAttention(TorchFunctionMode):
    """A context of this thread in which `F.scaled_dot_product_attention` on a CPU makes gradients of values only, where no others are asked for."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        function = _attention if func is F.scaled_dot_product_attention else func
        return function(*args, **(kwargs or {}))


def _attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    constant = not any(x is not None and x.requires_grad for x in (query, key, attn_mask))
    if constant and value.requires_grad and dropout_p == 0 and value.device.type == "cpu":
        return _ConstantAttention.apply(value, query, key, attn_mask, is_causal, scale, enable_gqa)
    return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)


def attention_probabilities(query: Tensor, key: Tensor, mask: Tensor | None, is_causal: bool, scale: float | None) -> Tensor:
    """softmax(scale q k^T + mask) [..., heads, T, S] in float32 at least, 0 in rows that may see nothing; arguments as torch's attention takes them."""
    if key.shape[-3] != query.shape[-3]:  # grouped queries
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = wide(query) @ wide(key).mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is None:
        return scores.softmax(-1)
    scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1).masked_fill((scores == -torch.inf).all(-1, keepdim=True), 0)


class _ConstantAttention(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(value, query, key, mask, is_causal, scale, enable_gqa) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        value, query, key, mask, ctx.is_causal, ctx.scale, _ = inputs
        ctx.save_for_backward(query, key, mask)
        ctx.heads = value.shape[-3]

    @staticmethod
    def backward(ctx, grad: Tensor):
        made = attention_probabilities(*ctx.saved_tensors, ctx.is_causal, ctx.scale).mT @ wide(grad)
        if made.shape[-3] != ctx.heads:
            made = made.reshape(*made.shape[:-3], ctx.heads, -1, *made.shape[-2:]).sum(-3)
        return made.to(grad.dtype), *[None] * 6
