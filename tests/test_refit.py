"""The laws of the refit: what a layer is fitted to, and that all that holds of a B-cos model holds after it. float64, all families."""

import copy

import pytest
import torch
import transformers
from conftest import EMBEDDERS, IMAGE, POSITION, TEXT, batch_of, randomise_statistics, same, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bcos_hf import bcosify, refit_
from bcos_hf.calibration.layouts import layout_of
from bcos_hf.calibration.lockstep import Lockstep
from bcos_hf.calibration.objectives import Objective
from bcos_hf.calibration.solving import Rows, fit_rows, inverted
from bcos_hf.models.bcos_inputs import BcosStem, add_inverse_weights, as_stem_
from bcos_hf.models.bcos_layers import BcosConv2d
from bcos_hf.models.bcos_scaling import bcos_scaling


EXACT = dict(ridges=(0.0,), steps=0, held_out=0)  # plain least squares


def inputs_of(family, count=24, seed=5):
    """Calibration inputs: images around 0, or texts of 4 to 9 tokens, in two batches."""
    generator = torch.Generator().manual_seed(seed)
    if family in TEXT:
        ids = torch.randint(5, 90, (count, 9), generator=generator)
        mask = (torch.arange(9) < torch.randint(4, 10, (count, 1), generator=generator)).long()
        batch = {"input_ids": ids.masked_fill(mask == 0, 1 if family == "roberta" else 0), "attention_mask": mask}
    else:
        batch = {"pixel_values": torch.randn(count, 3, 16, 16, generator=generator, dtype=torch.float64)}
    return [{name: value[part] for name, value in batch.items()} for part in (slice(0, count // 2), slice(count // 2, None))]


def refitted(standard, family, settings=None, **fields):
    """A twin with B = 1.5 and no biases, unless `fields` say otherwise, and what the refit says of it."""
    twin = bcosify(standard, **{"b": 1.5, "weight_norm": "none", **fields})
    return twin, refit_(twin, standard, inputs_of(family), progress=False, **(settings or {}))


def embedder(name):
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(name, **EMBEDDERS[name])).eval().double()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.normal_(0, 0.1)
        randomise_statistics(model)
    return model


def test_held_out_error_is_never_worse(member):
    _, fits = refitted(tiny(*member), member[0])
    assert fits
    assert all(fit.r2 >= fit.r2_before for fit in fits)


@pytest.mark.parametrize("name", sorted(EMBEDDERS))
def test_held_out_error_of_embedders_is_never_worse(name):
    _, fits = refitted(embedder(name), name)
    assert all(fit.r2 >= fit.r2_before for fit in fits)


def test_nothing_changes_where_the_twin_is_the_standard_model(member):
    """B = 1, biases kept. Every layer meets its target before the fit, too: the tables say what stands around it."""
    standard, batch = tiny(*member), batch_of(member[0])
    twin, fits = refitted(standard, member[0], **same(member[0]))
    assert all(fit.r2_before > 1 - 1e-9 for fit in fits)
    torch.testing.assert_close(twin(**batch).logits, standard(**batch).logits, rtol=0, atol=1e-7)


def test_outputs_come_nearer_to_the_standard_model(member):
    """On inputs that were not calibrated on, without biases."""
    standard = tiny(*member)
    fields = dict(b=1.0, weight_norm="none", **({"logit_bias": None} if member[0] in IMAGE else {}))
    plain = bcosify(standard, **fields)
    twin, _ = refitted(standard, member[0], **fields)
    batch = inputs_of(member[0], seed=6)[0]
    with torch.no_grad():
        logits, before, after = (model(**batch).logits for model in (standard, plain, twin))
    assert (after - logits).square().mean() < (before - logits).square().mean()


# layers without activation or norm behind them, which do not write to a stream by whose size errors are weighted
PLAIN = {
    "bert": "bert.encoder.layer.1.attention.self.value",
    "llama": "model.layers.1.self_attn.q_proj",
    "densenet": "features.denseblock1.denselayer2.conv2",
    "convnext": "convnext.encoder.stages.1.layers.0.pwconv2",
}


@pytest.mark.parametrize("family", sorted(PLAIN))
def test_b_1_is_the_least_squares_solution(family):
    """By torch.linalg.lstsq, on the rows that the layer gets in the refitted twin."""
    standard = tiny(family)
    twin, _ = refitted(standard, family, EXACT, b=1.0)
    layer, original = twin.get_submodule(PLAIN[family]), standard.get_submodule(PLAIN[family])
    seen = []
    with torch.no_grad(), layer.register_forward_pre_hook(lambda module, args: seen.append(args[0])):
        for batch in inputs_of(family):
            twin(**batch)
    if isinstance(layer, nn.Conv2d):
        x = torch.cat([nn.functional.unfold(x, layer.kernel_size, padding=layer.padding).transpose(1, 2).flatten(0, 1) for x in seen])
        y = torch.cat([original(x).permute(0, 2, 3, 1).flatten(0, 2) for x in seen])
    else:
        masks = [batch.get("attention_mask", torch.ones(x.shape[:-1])) for batch, x in zip(inputs_of(family), seen, strict=True)]
        x = torch.cat([x[mask.bool()] for x, mask in zip(seen, masks, strict=True)])
        y = original(x)  # of the norms in front BERT's have their bias written by the layers before them, Llama's have none
    weight = layer.weight.flatten(1).T
    fitted, best = ((x @ solution - y).square().sum() for solution in (weight, torch.linalg.lstsq(x, y).solution))
    assert fitted <= best * (1 + 1e-6) + 1e-12


@pytest.mark.parametrize("family", ["vit", "deit", "dinov2", "clip", "siglip"])
def test_patches_of_images_beside_their_inverse_are_the_standard_layers(family):
    """B = 1: the stem on [x, 1 - x], its bias in the position embeddings."""
    standard = tiny(family)
    mean, std = torch.tensor([0.5, 0.4, 0.6]).double(), torch.tensor([0.2, 0.3, 0.25]).double()
    twin = bcosify(standard, b=1.0, weight_norm="none", input_encoding="add_inverse")
    images = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    refit_(twin, standard, [{"pixel_values": images}], (mean, std), progress=False)
    name = next(name for name, _ in standard.named_modules() if name.endswith("embeddings"))
    normalized = (images - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    torch.testing.assert_close(twin.get_submodule(name)(images), standard.get_submodule(name)(normalized), rtol=0, atol=1e-6)


@given(padding=st.integers(0, 2), stride=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_the_formula_of_the_stem_is_exact(padding, stride, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 3, 3, 3, generator=generator, dtype=torch.float64)
    x, mean = (torch.rand(*shape, generator=generator, dtype=torch.float64) for shape in ((2, 3, 7, 7), (3,)))
    std = mean + 0.1
    encoded = torch.cat([x, 1 - x], dim=1)
    made = nn.functional.conv2d(encoded, add_inverse_weights(weight, mean, std), stride=stride, padding=padding)
    normalized = (x - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    torch.testing.assert_close(made, nn.functional.conv2d(normalized, weight, stride=stride, padding=padding), rtol=0, atol=1e-10)
    patches = weight.permute(0, 2, 3, 1).flatten(1)  # channels innermost
    one = encoded[:1, :, :3, :3].permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(one @ add_inverse_weights(patches, mean, std).T, normalized[:1, :, :3, :3].permute(0, 2, 3, 1).flatten(1) @ patches.T)


def test_contributions_add_up_after_a_refit(member):
    (family, head), batch = member, batch_of(member[0])
    twin, _ = refitted(tiny(*member), family)
    position = POSITION.get(head)
    explanation = twin.explain(**batch, **({} if position is None else {"position": position}))
    logits = twin(**batch).logits
    logits = logits if position is None else logits[torch.arange(3), position]
    total = explanation.contributions.flatten(2).sum(-1) + explanation.constant
    torch.testing.assert_close(total, logits.gather(1, explanation.targets), rtol=0, atol=1e-9)


@pytest.mark.parametrize("family", sorted({*TEXT, "resnet", "cifar_resnet", "resnext", "densenet", "vgg"}))
def test_the_constant_is_the_logit_bias_alone(family):
    """Where there are no position embeddings: a refit keeps no bias anywhere."""
    twin, _ = refitted(tiny(family), family)
    constant = twin.explain(**batch_of(family)).constant
    expected = twin.config.logit_bias_value or 0.0
    torch.testing.assert_close(constant, torch.full_like(constant, expected), rtol=0, atol=1e-12)


def test_a_refit_is_deterministic(family):
    standard = tiny(family)
    first, second = (refitted(standard, family, {"memory_mb": 1})[0].state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_source_and_the_modes_stay(family):
    standard = tiny(family)
    before = copy.deepcopy(standard.state_dict())
    twin = bcosify(standard, b=1.5, weight_norm="none").train()
    names = set(twin.state_dict())
    refit_(twin, standard, inputs_of(family), progress=False)
    assert all(torch.equal(value, before[name]) for name, value in standard.state_dict().items())
    assert twin.training and not standard.training
    assert set(twin.state_dict()) == names
    assert not any(module._forward_hooks for module in twin.modules())


def test_saved_and_loaded_it_is_the_same(family, tmp_path):
    twin, _ = refitted(tiny(family), family)
    twin.save_pretrained(tmp_path)
    loaded = type(twin).from_pretrained(tmp_path, dtype=torch.float64)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in twin.state_dict().items())


def test_a_layer_that_is_used_twice_is_refused():
    standard = tiny("bert")
    twin = bcosify(standard, b=1.5, weight_norm="none")
    twin.bert.encoder.layer[1] = twin.bert.encoder.layer[0]
    before = copy.deepcopy(twin.state_dict())
    with pytest.raises(ValueError, match="shared"):
        refit_(twin, standard, inputs_of("bert"), progress=False)
    assert all(torch.equal(value, before[name]) for name, value in twin.state_dict().items())


def test_a_layer_that_nothing_comes_to_is_named():
    standard = embedder("clip")
    twin = bcosify(standard, convert_text=True)
    before = copy.deepcopy(twin.state_dict())
    with pytest.raises(ValueError, match=r"nothing came to text_"):
        refit_(twin, standard, inputs_of("clip"), progress=False)
    assert all(torch.equal(value, before[name]) for name, value in twin.state_dict().items())


def test_b_is_chosen_by_a_budget():
    standard, batches = tiny("vit"), inputs_of("vit", 12)
    modest = bcosify(standard, calibration=batches, r2_budget=0.01, refit={"steps": 2}).config.b
    lavish = bcosify(standard, calibration=batches, r2_budget=10.0, refit={"steps": 2}).config.b
    assert len(modest) == standard.config.num_hidden_layers + 1
    assert lavish == [2.5] * len(modest)
    assert all(1 <= low <= high for low, high in zip(modest, lavish, strict=True))
    assert modest != lavish


@given(
    groups=st.sampled_from([1, 2, 4]), kernel=st.integers(1, 3), stride=st.integers(1, 2), padding=st.integers(0, 2), dilation=st.integers(1, 2),
    mode=st.sampled_from(["zeros", "reflect", "circular"]), encoding=st.sampled_from([None, "none", "normalized", "add_inverse"]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_rows_times_weights_are_the_layer(groups, kernel, stride, padding, dilation, mode, encoding):
    torch.manual_seed(0)
    channels = 4 if encoding is None else 3
    layer = BcosConv2d(channels, 8, kernel, stride, padding, dilation, groups if encoding is None else 1, padding_mode=mode, b=1.5).double()
    if encoding is not None:
        layer.set_bcos(b=1.5)
        as_stem_(layer, encoding)
        layer.double()
        assert isinstance(layer, BcosStem)
    x = torch.rand(2, channels, 9, 9, dtype=torch.float64) - float(encoding == "normalized")
    layout = layout_of(layer, layer, None)
    y = layer(x)
    positions = torch.randperm(y[:, 0].numel())[:11]
    seen = layout.seen(x)
    lin = layout.rows(seen, positions) @ layout.weights(layer).mT
    torch.testing.assert_close(bcos_scaling(lin, layout.norm(seen, positions), None, 1.5), layout.outputs(y, positions))
    weights = layout.weights(layer).clone()
    layer.weight.data.zero_()
    with torch.no_grad():
        layout.set_weights(weights)
    torch.testing.assert_close(layer(x), y)


@given(b=st.sampled_from([1.0, 1.1, 1.5, 2.0, 3.0]), seed=st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_a_b_cos_layer_is_found_again(b, seed):
    """The target is a B-cos layer's own output: the fit finds its weights, and the inverse of the scaling its linear response."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 200, 6, generator=generator, dtype=torch.float64)
    weights = torch.randn(1, 4, 6, generator=generator, dtype=torch.float64)
    n = x.norm(dim=-1, keepdim=True)
    lin = x @ weights.mT
    target = lin * (lin.abs() / n) ** (b - 1)
    torch.testing.assert_close(inverted(target, n, b), lin)
    rows = Rows(x, n, Objective(target, target))
    fitted = fit_rows(rows, rows, torch.zeros_like(weights), torch.randn_like(weights), b, ridges=(1e-12,), steps=0)
    torch.testing.assert_close(fitted.weights, weights, rtol=0, atol=1e-5)
    assert fitted.r2 > 1 - 1e-9


def test_passes_go_in_turns_and_meet():
    order, lockstep = [], Lockstep(3)

    def one(index):
        order.append(("before", index))
        got = lockstep.meet("place", index, lambda items: [10 * item for item in items])
        order.append(("after", got))

    lockstep.run([lambda index=index: one(index) for index in range(3)])
    assert order == [("before", 0), ("before", 1), ("before", 2), ("after", 0), ("after", 10), ("after", 20)]


def test_an_error_in_one_pass_ends_all():
    lockstep, ended = Lockstep(2), []

    def one(index):
        try:
            lockstep.meet("place", index, lambda items: 1 / 0)
        finally:
            ended.append(index)

    with pytest.raises(ZeroDivisionError):
        lockstep.run([lambda index=index: one(index) for index in range(2)])
    assert sorted(ended) == [0, 1]


def test_passes_that_come_to_different_places_are_refused():
    lockstep = Lockstep(2)
    with pytest.raises(RuntimeError, match="one order"):
        lockstep.run([lambda index=index: lockstep.meet(f"place {index}", index, list) for index in range(2)])
