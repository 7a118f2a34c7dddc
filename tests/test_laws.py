"""The laws of a B-cos model, one test each, over all families. float64, so that a law is a law and not a tolerance."""

import copy
import re

import pytest
import torch
from conftest import EMBEDDERS, POSITION, SIZES, TEXT, batch_of, explained_input, same, tiny

from bcos_hf import bcosify
from bcos_hf.models import FAMILIES
from bcos_hf.models.bcos_layers import Bcos


B = [1.0, 1.5, 2.0]


def logits_of(model, batch, position=None):
    logits = model(**batch).logits
    return logits if logits.dim() == 2 else logits[torch.arange(len(logits)), position]


def test_every_family_is_tried():
    assert {*SIZES, *EMBEDDERS} == set(FAMILIES)


def test_b_1_with_biases_is_the_standard_model(member):
    standard, batch = tiny(*member), batch_of(member[0])
    twin = bcosify(standard, **same(member[0]))
    torch.testing.assert_close(twin(**batch).logits, standard(**batch).logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize("keep_biases", [False, True])
@pytest.mark.parametrize("head_activation", ["identity", "keep"])
def test_jacobian_times_input_is_the_output(family, batch, keep_biases, head_activation):
    model = bcosify(tiny(family), b=1.5, keep_biases=keep_biases, head_activation=head_activation)
    explanation = model.explain(**batch, targets=[[0, 1, 2]] * 3)
    total = torch.einsum("nkx,nx->nk", explanation.weights.flatten(2), explained_input(model, batch).flatten(1)) + explanation.constant
    torch.testing.assert_close(total, model(**batch).logits, rtol=0, atol=1e-8)
    if family in TEXT:  # pictures have position embeddings and a logit bias besides
        assert (explanation.constant.abs().max() > 0) == keep_biases


@pytest.mark.parametrize("b", [*B, [1.25, 2.0]])
@pytest.mark.parametrize("weight_norm", ["none", "unit"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_explanation_mode_never_changes_a_value(family, batch, b, weight_norm, dtype):
    model = bcosify(tiny(family), b=b, weight_norm=weight_norm, keep_biases=True, head_activation="keep").to(dtype)
    batch = {name: value.to(dtype) if value.is_floating_point() else value for name, value in batch.items()}
    ordinary = model(**batch).logits
    with model.explanation_mode(), model.explanation_mode():
        assert torch.equal(model(**batch).logits, ordinary)
    assert not any(getattr(module, "explaining", 0) for module in model.modules())


def test_explanation_mode_ends_on_an_error(family, batch):
    model = bcosify(tiny(family))
    with pytest.raises(ZeroDivisionError), model.explanation_mode():
        1 / 0  # noqa: B018
    assert not any(getattr(module, "explaining", 0) for module in model.modules())


@pytest.mark.parametrize("fields", [{}, {"keep_biases": True}, {"logit_bias": -0.7, "logit_temperature": 2.0}, {"max_out": 2}, {"learnable_b": True}])
def test_contributions_add_up(member, fields):
    (family, head), batch = member, batch_of(member[0])
    model, position = bcosify(tiny(family, head), b=1.5, **fields), POSITION.get(head)
    explanation = model.explain(**batch, **({} if position is None else {"position": position}))
    expected = logits_of(model, batch, position).gather(1, explanation.targets)
    torch.testing.assert_close(explanation.contributions.flatten(2).sum(-1) + explanation.constant, expected, rtol=0, atol=1e-10)
    assert explanation.relative_residual.max() < 1e-10
    if family in TEXT:
        assert (explanation.contributions.masked_select((batch["attention_mask"] == 0)[:, None]) == 0).all()


@pytest.mark.parametrize("contrast", [1, "mean"])
def test_contrast_is_a_difference(family, batch, contrast):
    model = bcosify(tiny(family), keep_biases=True)
    explanation = model.explain(**batch, targets=0, contrast=contrast)
    logits = model(**batch).logits
    other = logits[:, 1] if contrast == 1 else logits.mean(1)
    total = explanation.contributions.flatten(2).sum(-1) + explanation.constant
    torch.testing.assert_close(total[:, 0], logits[:, 0] - other, rtol=0, atol=1e-10)


def test_every_source_tensor_is_used_or_listed(member):
    standard = tiny(*member)
    before = copy.deepcopy(standard.state_dict())
    twin = bcosify(standard)
    names, report = set(standard.state_dict()), twin.conversion_report
    assert names == set(report.dropped) | (names & set(twin.state_dict()))
    assert not set(report.dropped) & set(twin.state_dict())
    same_shape = {name: value for name, value in twin.state_dict().items() if name in before and value.shape == before[name].shape}
    assert all(torch.equal(value, before[name]) for name, value in same_shape.items())
    assert len(set(twin.state_dict()) & names - set(same_shape)) == (member[1] == "image")  # the first layer alone
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in standard.state_dict().items())


def test_targets_and_batch_mates_do_not_matter(family, batch):
    model = bcosify(tiny(family), keep_biases=True)
    together = model.explain(**batch, targets=[[0, 1, 2]] * 3)
    chunked = model.explain(**batch, targets=[[0, 1, 2]] * 3, chunk=2)
    torch.testing.assert_close(chunked.contributions, together.contributions, rtol=0, atol=1e-12)
    lengths = batch["attention_mask"].sum(1).tolist() if family in TEXT else [None] * 3
    for row, length in enumerate(lengths):
        for target in range(3):
            single = {name: value[row : row + 1, :length] for name, value in batch.items()}
            alone = model.explain(**single, targets=target)
            expected = together.contributions[row, target]
            torch.testing.assert_close(alone.contributions[0, 0], expected[:length], rtol=0, atol=1e-12)
            torch.testing.assert_close(alone.constant[0, 0], together.constant[row, target], rtol=0, atol=1e-12)


def test_left_padding_is_as_good_as_right(text_family):
    model, batch = bcosify(tiny(text_family)), batch_of(text_family)
    shift = (9 - batch["attention_mask"].sum(1)).tolist()
    left = {name: torch.stack([row.roll(by) for row, by in zip(value, shift, strict=True)]) for name, value in batch.items()}
    right, moved = model.explain(**batch, targets=1), model.explain(**left, targets=1)
    for row, by in enumerate(shift):
        torch.testing.assert_close(moved.contributions[row].roll(-by, -1), right.contributions[row], rtol=0, atol=1e-12)
        torch.testing.assert_close(moved.weights[row].roll(-by, 1), right.weights[row], rtol=0, atol=1e-12)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_explaining_leaves_no_trace(family, batch, around):
    model = bcosify(tiny(family)).train()
    frozen = next(model.parameters()).requires_grad_(False)
    model(**batch, labels=torch.tensor([0, 1, 2])).loss.backward()
    grads = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    given = {name: value.clone() for name, value in batch.items()}
    with around():
        first, second = model.explain(**batch), model.explain(**batch)
    assert torch.equal(first.contributions, second.contributions) and torch.equal(first.weights, second.weights)
    assert modes == [module.training for module in model.modules()]
    assert not frozen.requires_grad and all(p.requires_grad for p in model.parameters() if p is not frozen)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    for name, p in model.named_parameters():
        assert (grads[name] is None and p.grad is None) or torch.equal(grads[name], p.grad)
    assert all(torch.equal(batch[name], value) for name, value in given.items())


def test_residual_is_rounding_in_float32_and_autocast_works(family, batch):
    model = bcosify(tiny(family)).float()
    assert model.explain(**batch).relative_residual.max() <= 1e-5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.explain(**batch).contributions.dtype == torch.float32


def test_per_layer_b_reaches_its_layers(family):
    model = bcosify(tiny(family), b=[1.25, 2.0, 1.75])
    found = {name.removeprefix(model.base_model_prefix): layer.b for name, layer in model.named_modules() if isinstance(layer, Bcos) and layer.b != 1}
    for layer, b in enumerate((1.25, 2.0)):
        numbers = {int(re.search(r"\d+", name)[0]) for name, value in found.items() if value == b}
        numbers = {{"densenet": number - 1, "vgg": number // 4}.get(family, number) for number in numbers}  # blocks from 1; convolution, norm, ReLU, pool
        assert numbers == {layer}
    assert {b for name, b in found.items() if name in model.roles.logits} == {1.75}


def test_training_works_compiled_checkpointed_and_under_autocast(family, batch):
    torch._dynamo.reset()  # all families in one process are more than a cache of code takes
    model = bcosify(tiny(family)).float().train()
    batch = {name: value.float() if value.is_floating_point() else value for name, value in batch.items()}
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    labels = torch.tensor([0, 1, 2])

    def gradient(run):
        model.zero_grad()
        run(**batch, labels=labels).loss.backward()
        return next(p for p in model.parameters() if p.grad is not None).grad.clone()

    plain = gradient(model)
    compiled = gradient(torch.compile(model, fullgraph=True, backend="aot_eager"))
    torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-6)
    if model.supports_gradient_checkpointing:
        model.activation_checkpointing_enable()
        torch.testing.assert_close(gradient(model), plain, rtol=1e-4, atol=1e-7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(gradient(model)).all()
