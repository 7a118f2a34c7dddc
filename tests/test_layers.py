"""The layers against the papers' formulas, written slowly."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from bcos_hf import explanation_mode
from bcos_hf.models import bcos_batch_norm, bcos_norms
from bcos_hf.models.bcos_activations import GATES, gated
from bcos_hf.models.bcos_layers import BcosConv1D, BcosConv2d, BcosLinear


BS = [1.0, 1.1, 1.25, 1.5, 2.0, 2.5]


def slow_scaling(lin, norm, b):
    if b in (1, 2):
        return lin * (lin.abs() / norm) ** (b - 1)
    return lin * ((lin / norm).abs() + 1e-6) ** (b - 1)


def slow_linear(x, weight, bias, b, weight_norm, eps, max_out=1):
    weight = weight / weight.norm(dim=1, keepdim=True) if weight_norm == "unit" else weight
    lin = x @ weight.t() + (0 if bias is None else bias)
    lin = lin.unflatten(-1, (-1, max_out)).amax(-1)
    return slow_scaling(lin, (x.square().sum(-1, keepdim=True) + eps**2).sqrt(), b)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 2e-5)])
@pytest.mark.parametrize("max_out", [1, 2])
@pytest.mark.parametrize("weight_norm", ["none", "unit"])
@pytest.mark.parametrize("b", BS)
def test_linear_is_the_formula_with_its_gradients(b, weight_norm, max_out, dtype, tolerance):
    torch.manual_seed(0)
    layer = BcosLinear(13, 6, b=b, weight_norm=weight_norm, max_out=max_out, eps=1e-3, dtype=dtype)
    x, cotangent = torch.randn(4, 5, 13, dtype=dtype, requires_grad=True), torch.randn(4, 5, 6, dtype=torch.float64)
    wide, weight = x.detach().double().requires_grad_(), layer.weight.detach().double().requires_grad_()
    ours, slow = layer(x), slow_linear(wide, weight, None, b, weight_norm, 1e-3, max_out)
    grads = torch.autograd.grad((ours * cotangent).sum(), (x, layer.weight))
    expected = torch.autograd.grad((slow * cotangent).sum(), (wide, weight))
    for mine, theirs in zip((ours, *grads), (slow, *expected), strict=True):
        assert (mine - theirs).abs().max() <= tolerance * theirs.abs().max()


@settings(deadline=None, max_examples=40)
@given(
    kernel=st.integers(1, 3), stride=st.integers(1, 3), padding=st.integers(0, 2), dilation=st.integers(1, 2), groups=st.sampled_from([1, 2]),
    mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]), b=st.sampled_from(BS), weight_norm=st.sampled_from(["none", "unit"]),
    max_out=st.sampled_from([1, 2]), seed=st.integers(0, 9),
)  # fmt: skip
def test_conv_is_a_linear_layer_on_patches(kernel, stride, padding, dilation, groups, mode, b, weight_norm, max_out, seed):
    torch.manual_seed(seed)
    conv = BcosConv2d(4, 6, kernel, stride, padding, dilation, groups, padding_mode=mode, b=b, weight_norm=weight_norm, max_out=max_out, dtype=torch.float64)
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    padded = F.pad(x, [padding] * 4, mode="constant" if mode == "zeros" else mode)
    patches = F.unfold(padded, kernel, dilation, 0, stride).transpose(1, 2).unflatten(2, (groups, -1))
    weights = conv.weight.flatten(1).unflatten(0, (groups, -1))
    slow = torch.cat([slow_linear(patches[:, :, g], weights[g], None, b, weight_norm, 1e-3, max_out) for g in range(groups)], -1)
    ours = conv(x)
    torch.testing.assert_close(ours, slow.transpose(1, 2).unflatten(2, ours.shape[-2:]), rtol=0, atol=1e-10)


def test_conv1d_is_a_linear_layer_with_its_weight_transposed():
    torch.manual_seed(0)
    layer = BcosConv1D(6, 13, b=1.5, weight_norm="unit").double()
    x = torch.randn(4, 13, dtype=torch.float64)
    torch.testing.assert_close(layer(x), slow_linear(x, layer.weight.t(), None, 1.5, "unit", 1e-3), rtol=0, atol=1e-10)


def test_learned_b_has_its_gradient():
    torch.manual_seed(0)
    layer = BcosLinear(7, 5, b=1.5, learnable_b=True, weight_norm="unit").double()
    x = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)

    def run(x, weight, b):
        return torch.func.functional_call(layer, {"weight": weight, "b": b}, (x,))

    assert torch.autograd.gradcheck(run, (x, layer.weight.detach().requires_grad_(), layer.b.detach().requires_grad_()))
    low = torch.func.functional_call(layer, {"b": torch.tensor(0.5, dtype=torch.float64)}, (x,))
    torch.testing.assert_close(low, x @ (layer.weight / layer.weight.norm(dim=1, keepdim=True)).t())


@pytest.mark.parametrize("b", [1.5, 2.0])
def test_vmap_jacobians_and_compile(b):
    torch.manual_seed(0)
    layer = BcosLinear(7, 5, b=b, weight_norm="unit").double()
    x = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    rows = torch.stack([torch.autograd.grad(y[:, k].sum(), x, retain_graph=True)[0] for k in range(5)])
    torch.testing.assert_close(torch.vmap(layer)(x), y)
    torch.testing.assert_close(torch.vmap(torch.func.jacrev(layer))(x).movedim(1, 0), rows)
    one_hot = torch.eye(5, dtype=torch.float64)[:, None].expand(5, 3, 5)
    torch.testing.assert_close(torch.autograd.grad(y, x, one_hot, is_grads_batched=True, retain_graph=True)[0], rows)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(torch.autograd.grad(compiled[:, 0].sum(), x)[0], rows[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_has_no_nan_at_zero(dtype):
    layer = BcosLinear(7, 5, b=1.5, dtype=dtype)
    x = torch.zeros(2, 7, dtype=dtype, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert torch.isfinite(y).all() and torch.isfinite(x.grad).all() and y.dtype == dtype


NORMS = {
    "layer": (lambda: bcos_norms.BcosLayerNorm(6), (2, 4, 6)),
    "group": (lambda: bcos_norms.BcosGroupNorm(2, 6), (2, 6, 3, 3)),
    "uncentred group": (lambda: bcos_norms.UncenteredGroupNorm(2, 6), (2, 6, 3, 3)),
    "position": (lambda: bcos_norms.PositionNorm2d(6), (2, 6, 3, 3)),
    "rms": (lambda: bcos_norms.BcosRMSNorm(6), (2, 4, 6)),
    "batch": (lambda: bcos_batch_norm.UncenteredBatchNorm2d(6), (2, 6, 3, 3)),
    "all": (lambda: bcos_batch_norm.UncenteredAllNorm2d(), (2, 6, 3, 3)),
}


def is_dynamic_linear(layer, x):
    x = x.requires_grad_()
    ordinary = layer(x)
    with explanation_mode(layer):
        y = layer(x)
    assert torch.equal(y, ordinary)
    jacobian = torch.stack([torch.autograd.grad(value, x, retain_graph=True)[0] for value in y.flatten()])
    torch.testing.assert_close((jacobian * x).flatten(1).sum(1), y.flatten(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NORMS)
def test_norms_are_dynamic_linear(name):
    torch.manual_seed(0)
    make, shape = NORMS[name]
    norm = make().double().eval()
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    is_dynamic_linear(norm, torch.randn(shape, dtype=torch.float64))


@pytest.mark.parametrize("name", ["batch", "all"])
def test_running_variance_is_the_biased_one(name):
    make, shape = NORMS[name]
    norm, x = make().double().train(), torch.randn(shape, dtype=torch.float64)
    norm(x)
    expected = 0.9 + 0.1 * x.var((0, 2, 3) if name == "batch" else (0, 1, 2, 3), unbiased=False).view(-1)
    torch.testing.assert_close(norm.running_var, expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cls", [bcos_batch_norm.UncenteredBatchNorm2d, bcos_batch_norm.BcosBatchNorm2d])
def test_the_layout_of_input_and_gradient_does_not_change_it(cls, training):
    """torch 2.13's own kernel for CPUs fails this, for one picture."""
    norm, x, gradient = cls(8).train(training), torch.randn(1, 8, 3, 2), torch.randn(1, 8, 3, 2)

    def laid_out(t):
        return t.contiguous(memory_format=torch.channels_last).as_strided(t.shape, (8, 1, 16, 8))

    assert torch.equal(laid_out(gradient), gradient)
    inputs = [each.detach().requires_grad_() for each in (x, laid_out(x))]
    expected, *others = (torch.autograd.grad(norm(each), each, g)[0] for each in inputs for g in (gradient, laid_out(gradient)))
    for got in others:
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("affine", [True, False])
def test_training_gradient_of_the_uncentred_norm(affine):
    torch.manual_seed(0)
    norm, x = bcos_batch_norm.UncenteredBatchNorm2d(3, affine=affine).double().train(), torch.randn(4, 3, 2, 5, dtype=torch.float64, requires_grad=True)
    parameters = {name: value.detach().uniform_(0.5, 1.5).requires_grad_() for name, value in norm.named_parameters()}
    assert torch.autograd.gradcheck(
        lambda x, *values: torch.func.functional_call(norm, dict(zip(parameters, values, strict=True)), (x,)), (x, *parameters.values())
    )
    slow = x / (x.var((0, 2, 3), unbiased=False, keepdim=True) + norm.eps).sqrt()
    torch.testing.assert_close(torch.func.functional_call(norm, {name: torch.ones(3).double() * (name == "weight") for name in parameters}, (x,)), slow)


@pytest.mark.parametrize("cls", GATES, ids=lambda cls: cls.__name__)
def test_activations_are_gates(cls):
    activation = cls(-10, 10) if "Clipped" in cls.__name__ else cls()
    is_dynamic_linear(gated(activation), torch.tensor([-3.0, -0.4, 0.0, 0.2, 2.5], dtype=torch.float64))
    assert type(pickle.loads(pickle.dumps(activation))) is type(activation)
    assert type(copy.deepcopy(activation)) is type(activation)


def test_what_is_no_gate_is_refused():
    with pytest.raises(ValueError, match="Sigmoid"):
        gated(nn.Sigmoid())
