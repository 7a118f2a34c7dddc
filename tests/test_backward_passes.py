"""The shorter backward passes of explanations, against autograd's own."""

import math

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F

from bcos_hf.models.bcos_batch_norm import BATCH_NORMS, _BatchScaling
from bcos_hf.models.bcos_constant_attention import ConstantAttention
from bcos_hf.models.bcos_dynamic import explanation_mode
from bcos_hf.models.bcos_sparse_rows import linear_by_rows, rows_with_gradient
from bcos_hf.models.bcos_synchronised_norm import synchronised_scaling


@pytest.mark.parametrize("share", [0, 0.1, 0.6, 1])
@pytest.mark.parametrize("seed", range(3))
def test_linear_by_rows_has_the_gradient_of_linear(share, seed):
    torch.manual_seed(seed)
    x, weight, bias = torch.randn(4, 9, 6, dtype=torch.float64, requires_grad=True), torch.randn(5, 6).double(), torch.randn(5).double()
    cotangent = torch.randn(4, 9, 5).double() * (torch.rand(4, 9, 1) < share)
    cotangent[..., 0] *= torch.rand(4, 9) < 0.5  # a first column of zeros may hide rows that are none
    ours, theirs = linear_by_rows(x, weight, bias), F.linear(x, weight, bias)
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, x, cotangent)[0], torch.autograd.grad(theirs, x, cotangent)[0], rtol=1e-12, atol=1e-14)
    batch = torch.stack([cotangent, cotangent.flip(0)])
    made = torch.autograd.grad(linear_by_rows(x, weight, bias), x, batch, is_grads_batched=True)[0]
    torch.testing.assert_close(made, batch @ weight, rtol=1e-12, atol=1e-14)


def test_rows_are_skipped_only_where_they_are_zeros():
    grad = torch.zeros(8, 3)
    grad[2, 1] = torch.finfo(grad.dtype).tiny
    assert rows_with_gradient(grad).tolist() == [2]
    assert rows_with_gradient(torch.zeros(8, 3)).tolist() == []
    grad[:4, 0] = 1
    assert rows_with_gradient(grad) is None
    grad[:, 0], grad[6, 2] = 0, torch.nan
    assert rows_with_gradient(grad).tolist() == [2, 6]


def _masks(n, t, s):
    blind = torch.rand(n, 1, t, s) < 0.7
    blind[0, 0, 0] = False  # a row that sees nothing, as padding on the left makes
    return {"none": None, "boolean": blind, "additive": torch.zeros(n, 1, t, s).double().masked_fill(~blind, -math.inf), "bias": torch.randn(t, s).double()}


@pytest.mark.parametrize("mask", ["none", "boolean", "additive", "bias", "causal"])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_constant_attention_has_the_gradient_of_attention_for_values(mask, kv_heads, scale):
    torch.manual_seed(0)
    query = torch.randn(2, 4, 5, 6).double()
    key, value = torch.randn(2, kv_heads, 7, 6).double(), torch.randn(2, kv_heads, 7, 3, dtype=torch.float64, requires_grad=True)
    options = {"is_causal": mask == "causal", "scale": scale, "enable_gqa": kv_heads != 4}
    attn_mask = None if mask == "causal" else _masks(2, 5, 7)[mask]
    cotangent = torch.randn(2, 4, 5, 3).double()
    theirs = F.scaled_dot_product_attention(query, key, value, attn_mask, **options)
    expected = torch.autograd.grad(theirs, value, cotangent)[0]
    with ConstantAttention():
        ours = F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, **options)
        kept = F.scaled_dot_product_attention(query.requires_grad_(), key, value, attn_mask, **options)
    assert torch.equal(ours, theirs) and "ConstantAttention" in type(ours.grad_fn).__name__
    assert torch.equal(kept, theirs) and "ConstantAttention" not in type(kept.grad_fn).__name__  # queries that are trained keep their gradient
    torch.testing.assert_close(torch.autograd.grad(ours, value, cotangent)[0], expected)
    batch = torch.stack([cotangent, 2 * cotangent])
    with ConstantAttention():
        again = F.scaled_dot_product_attention(query.detach(), key, value, attn_mask, **options)
    torch.testing.assert_close(torch.autograd.grad(again, value, batch, is_grads_batched=True)[0], torch.stack([expected, 2 * expected]))


@pytest.mark.parametrize("affine", [True, False])
def test_a_synchronised_norm_of_one_process_is_the_norm(affine):
    """Several processes are in test_clip_training.py."""
    torch.manual_seed(0)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        x, cotangent = torch.randn(3, 2, 4, 5, dtype=torch.float64, requires_grad=True), torch.randn(3, 2, 4, 5).double()
        leaves = (x, *(torch.randn(2, dtype=torch.float64, requires_grad=True) for _ in range(2))) if affine else (x,)
        weight, bias = leaves[1:] or (None, None)
        made = (synchronised_scaling(x, weight, bias, 1e-5), _BatchScaling.apply(x, weight, bias, 1e-5)[::2])
        for ours, theirs in zip(*made, strict=True):
            torch.testing.assert_close(ours, theirs)
        grads = [torch.autograd.grad(y, leaves, cotangent) for y, _ in made]
        for ours, theirs in zip(*grads, strict=True):
            torch.testing.assert_close(ours, theirs)
    finally:
        dist.destroy_process_group()


def test_the_norm_of_a_frozen_model_has_its_gradient_in_explanations():
    torch.manual_seed(0)
    for norm in (nn.BatchNorm2d(3).double().eval(), nn.BatchNorm2d(3, affine=False).double().eval()):
        for parameter in (*norm.parameters(), norm.running_mean, norm.running_var):
            nn.init.uniform_(parameter, 0.5, 2)
        for kind in ("uncentered", "centered"):
            BATCH_NORMS[kind](norm)
            x, cotangent = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True), torch.randn(2, 3, 4, 4).double()
            with explanation_mode(norm):
                kept = norm(x)
                frozen = norm.requires_grad_(False)(x)
            norm.requires_grad_(True)
            assert torch.equal(frozen, kept) and torch.equal(frozen, norm(x))
            torch.testing.assert_close(*(torch.autograd.grad(y, x, cotangent)[0] for y in (frozen, kept)))
