"""Checkpoints of the authors' B-cosification code: every published size by name and shape, small ones by what they compute, and what is refused.

The layout is that of tests/fixtures/net_bcosified_*.json (`name_map_bcos_to_standard`), inside a Lightning module (`model.`, `ema.module.`, `clip_model.`).
"""

import math
import pathlib
import re

import pytest
import torch
from torch.nn import functional as F

from bcos_hf.checkpoints import from_bcosification


def norm(name: str, channels: int) -> dict[str, tuple]:
    """Without a bias; `running_mean` stays."""
    return {f"{name}.weight": (channels,), f"{name}.running_mean": (channels,), f"{name}.running_var": (channels,), f"{name}.num_batches_tracked": ()}


def conv(name: str, rows: int, columns: int, size: int = 1) -> dict[str, tuple]:
    return {f"{name}.linear.weight": (rows, columns, size, size)}


def linear(name: str, rows: int, columns: int) -> dict[str, tuple]:
    return {f"{name}.linear.weight": (rows, columns)}


def resnet(layers, widths, expansion, classes=1000, gap=True) -> dict[str, tuple]:
    """torchvision's ResNet."""
    made, channels = conv("conv1", widths[0], 6, 7) | norm("bn1", widths[0]), widths[0]
    for stage, (depth, width) in enumerate(zip(layers, widths, strict=True), start=1):
        for block in range(depth):
            name, out = f"layer{stage}.{block}", expansion * width
            sizes = [(width, channels, 1), (width, width, 3), (out, width, 1)] if expansion > 1 else [(width, channels, 3), (width, width, 3)]
            for i, (rows, columns, size) in enumerate(sizes, start=1):
                made |= conv(f"{name}.conv{i}", rows, columns, size) | norm(f"{name}.bn{i}", rows)
            if channels != out or (stage > 1 and not block):
                made |= conv(f"{name}.downsample.0", out, channels) | norm(f"{name}.downsample.1", out)
            channels = out
    return made | (conv("fc", classes, channels) if gap else linear("fc", classes, channels))


def densenet(growth, blocks, channels, bottleneck=4, classes=1000) -> dict[str, tuple]:
    """torchvision's DenseNet, the children of its sequences numbered."""
    made = conv("features.0", channels, 6, 7) | norm("features.1", channels)
    for i, depth in enumerate(blocks):
        for layer in range(1, depth + 1):
            name, inner = f"features.{4 + 2 * i}.denselayer{layer}", bottleneck * growth
            made |= norm(f"{name}.norm1", channels) | conv(f"{name}.conv1", inner, channels) | norm(f"{name}.norm2", inner)
            made |= conv(f"{name}.conv2", growth, inner, 3)
            channels += growth
        if i < len(blocks) - 1:
            made |= norm(f"features.{5 + 2 * i}.0", channels) | conv(f"features.{5 + 2 * i}.2", channels // 2, channels)
            channels //= 2
    return made | norm(f"features.{3 + 2 * len(blocks)}", channels) | conv("classifier", classes, channels)


def simple_vit(dim, depth, mlp, patch=16, stem=(), classes=1000) -> dict[str, tuple]:
    """B-cos v2's SimpleViT and, with a stem, ViT-C."""
    made, channels = {}, 6
    for i, out in enumerate(stem):
        made |= conv(f"to_patch_embedding.conv_stem.{3 * i}", out, channels, 3) | {f"to_patch_embedding.conv_stem.{3 * i + 1}.weight": (out,)}
        channels = out
    made |= linear("to_patch_embedding.linear", dim, channels * patch**2)
    for i in range(depth):
        name = f"transformer.encoder_{i}"
        made |= {f"{name}.attn.norm.weight": (dim,), f"{name}.attn.to_qkv.weight": (3 * dim, dim), f"{name}.ff.net.norm.weight": (dim,)}
        made |= linear(f"{name}.attn.to_out", dim, dim) | linear(f"{name}.ff.net.linear1", mlp, dim) | linear(f"{name}.ff.net.linear2", dim, mlp)
    return made | {"linear_head.norm.weight": (dim,)} | linear("linear_head.linear", classes, dim)


def clip_resnet(layers, width, projection) -> dict[str, tuple]:
    """OpenAI's image tower, the children of `downsample` numbered from 0: a pool, a convolution, a norm."""
    half, made, channels = width // 2, {}, width
    for i, (rows, columns) in enumerate([(half, 6), (half, half), (width, half)], start=1):
        made |= conv(f"conv{i}", rows, columns, 3) | norm(f"bn{i}", rows)
    for stage, depth in enumerate(layers, start=1):
        planes = width * 2 ** (stage - 1)
        for block in range(depth):
            name = f"layer{stage}.{block}"
            for i, (rows, columns, size) in enumerate([(planes, channels, 1), (planes, planes, 3), (4 * planes, planes, 1)], start=1):
                made |= conv(f"{name}.conv{i}", rows, columns, size) | norm(f"{name}.bn{i}", rows)
            if not block:
                made |= conv(f"{name}.downsample.1", 4 * planes, channels) | norm(f"{name}.downsample.2", 4 * planes)
            channels = 4 * planes
    pool = {f"attnpool.{part}_proj.weight": (channels, channels) for part in "kqv"}
    return made | pool | linear("attnpool.c_proj", projection, channels)


# the published models: names and shapes
PUBLISHED = {
    "resnet_18": resnet([2, 2, 2, 2], [64, 128, 256, 512], 1),
    "resnet_50": resnet([3, 4, 6, 3], [64, 128, 256, 512], 4),
    "densenet_121": densenet(32, [6, 12, 24, 16], 64),
    "simple_vit_ti_patch16_224": simple_vit(192, 12, 768),
    "simple_vit_s_patch16_224": simple_vit(384, 12, 1536),
    "simple_vit_b_patch16_224": simple_vit(768, 12, 3072),
    "simple_vit_l_patch16_224": simple_vit(1024, 14, 4096),
    "vitc_ti_patch1_14": simple_vit(192, 11, 768, 1, (24, 48, 96, 192)),
    "vitc_s_patch1_14": simple_vit(384, 11, 1536, 1, (48, 96, 192, 384)),
    "vitc_b_patch1_14": simple_vit(768, 11, 3072, 1, (64, 128, 128, 256, 256, 512)),
    "vitc_l_patch1_14": simple_vit(1024, 13, 4096, 1, (64, 128, 128, 256, 256, 512)),
    "resnet_50_clip": clip_resnet([3, 4, 6, 3], 64, 1024),
}
# parameters: the standard network's (torchvision's tables, OpenCLIP's model_profile.csv), less biases and positions, plus three channels of the first layer
PARAMETERS = {
    "resnet_18": 11_689_512 - 4_800 - 1_000 + 9_408,
    "resnet_50": 25_557_032 - 26_560 - 1_000 + 9_408,
    "densenet_121": 7_978_856 - 41_824 - 1_000 + 9_408,
    "resnet_50_clip": 38_316_896 - 26_624 - 3 * 2_048 - 1_024 - 50 * 2_048 + 864,
}
SMALL = {
    "resnet": resnet([1, 2], [4, 8], 1, 5),
    "densenet": densenet(4, [2, 1], 8, 2, 5),
    "simple_vit": simple_vit(64, 2, 96, 4, classes=5),
    "vitc": simple_vit(64, 1, 96, 1, (8, 8, 12), classes=5),
    "clip": clip_resnet([1, 1], 8, 6),
}
STEM = {"resnet": "conv1", "densenet": "features.0", "simple_vit": "to_patch_embedding.linear", "vitc": "to_patch_embedding.conv_stem.0", "clip": "conv1"}


def random_state(names: dict[str, tuple], prefix: str = "model.model.", seed: int = 0) -> dict[str, torch.Tensor]:
    """Trained: the six channels of the first layer are no longer a filter and its negative."""
    generator = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(shape, generator=generator) for name, shape in names.items()}
    made = {name: value.abs() if "running_var" in name else value for name, value in made.items()}
    return {f"{prefix}{name}": torch.tensor(3) if name.endswith("tracked") else value for name, value in made.items()}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_every_published_size(name):
    names = PUBLISHED[name]
    model = from_bcosification({f"model.model.{key}": torch.zeros(()).expand(shape) for key, shape in names.items()})
    config = model.config
    assert model.num_parameters() == sum(math.prod(shape) for key, shape in names.items() if not re.search("running|tracked", key))
    assert model.num_parameters() == PARAMETERS.get(name, model.num_parameters())
    assert (config.b, config.weight_norm, config.keep_biases, config.input_encoding, config.inner_activation) == (2.0, "none", False, "normalized", "keep")
    if "clip" not in name:
        assert config.num_labels == 1000 and config.head_before_pooling and config.logit_bias == pytest.approx(-math.log(999))
    if "vit" in name:
        assert config.hidden_size == 64 * config.num_attention_heads and config.patch_size == (1 if "vitc" in name else 16)
    else:
        assert (config.batch_norm, config.max_pool) == ("uncentered", "average")


def slow_stem(weight, z, module):
    """|w . x| (w . x) / |x| of x = [z, -z], by patches."""
    x = torch.cat([z, -z], dim=1)
    size, stride, padding = (4, 4, 0) if weight.dim() == 2 else (weight.shape[-1], module.stride, module.padding)
    patches = F.unfold(x, size, padding=padding, stride=stride)  # N, 6 * area (channels outermost), positions
    if weight.dim() == 2:  # channels innermost
        weight = weight.unflatten(1, (-1, 6)).transpose(1, 2)
    lin = weight.flatten(1) @ patches
    return lin * lin.abs() / (patches.square().sum(1, keepdim=True) + 1e-6).sqrt()


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_six_trained_channels_are_taken_as_they_are(kind):
    """And every tensor of the file is one of the model, and contributions add up."""
    state, z = random_state(SMALL[kind]), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model = from_bcosification(state)
    stem = next(module for module in model.modules() if type(module).__name__ in ("BcosStem", "BcosPatchStem"))
    weight = state[f"model.model.{STEM[kind]}.linear.weight"]
    assert torch.equal(stem.weight, weight)
    seen = []
    stem.register_forward_hook(lambda module, args, output: seen.append(output))
    text = (torch.randn(3, 6),) if kind == "clip" else ()
    explanation = model.double().explain(z.double(), *text)
    output = seen[0].flatten(1, -2).transpose(1, 2) if weight.dim() == 2 else seen[0].flatten(2)
    torch.testing.assert_close(output, slow_stem(weight.double(), z.double(), stem), rtol=1e-5, atol=1e-5)
    assert explanation.relative_residual.max() < 1e-8
    ours = sorted(value.flatten()[0].item() for value in from_bcosification(state).state_dict().values())
    assert ours == sorted(value.flatten()[0].item() for value in state.values())


def lightning(state, **model) -> dict:
    """What Lightning saves: counters, callbacks, optimizers and plain hyper-parameters beside the tensors."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))]).state_dict()
    callback = {"best_model_score": torch.tensor(0.7), "best_model_path": "epoch=3.ckpt", "dirpath": None}
    settings = {"name": "resnet18", "bcos_args": {"b": 2, "max_out": 1}, "bcosify_args": {"gap": True, "act_layer": True, "norm_layer": "BnUncV2"}, **model}
    made = {"epoch": 3, "global_step": 9, "pytorch-lightning_version": "2.0.0", "loops": {"fit_loop": {"state_dict": {}}}, "state_dict": state}
    return made | {"optimizer_states": [optimizer], "callbacks": {"ModelCheckpoint": callback}, "hyper_parameters": {"dataset": "ImageNet", "model": settings}}


def test_what_stands_beside_the_network_in_a_lightning_checkpoint(tmp_path):
    """Averaged weights are preferred; the frozen teacher and the scalars of the loss are left out."""
    trained, averaged = random_state(SMALL["clip"]), random_state(SMALL["clip"], "ema.module.model.", seed=1)
    beside = {"ema.n_averaged": torch.tensor(4), "clip_model.conv1.weight": torch.zeros(4, 3, 3, 3)}
    beside |= {"model.logit_scale": torch.tensor(2.3), "ema.module.logit_scale": torch.tensor(2.2)}
    torch.save(lightning({**trained, **averaged, **beside}), tmp_path / "last.ckpt")
    made = {ema: from_bcosification(tmp_path / "last.ckpt", ema=ema).attnpool.c_proj.weight for ema in (True, False)}
    name = "attnpool.c_proj.linear.weight"
    assert torch.equal(made[True], averaged[f"ema.module.model.{name}"]) and torch.equal(made[False], trained[f"model.model.{name}"])
    stripped = {key.removeprefix("model."): value for key, value in trained.items()}
    torch.save(stripped, tmp_path / "stripped.pth")
    assert torch.equal(from_bcosification(tmp_path / "stripped.pth").attnpool.c_proj.weight, made[False])


# kind, hyper-parameters beside the published ones -> configuration fields
SETTINGS = [
    ("resnet", {"bcos_args": {"b": 1.5}}, {"b": 1.5}),
    ("resnet", {"bcosify_args": {"act_layer": False, "norm_layer": "BnUnc2d"}}, {"inner_activation": "identity", "batch_norm": "uncentered"}),
    ("densenet", {"bcosify_args": {"norm_layer": "Bn2d"}}, {"batch_norm": "centered"}),
    ("vitc", {"args": {"gap_reorder": False}, "act_layer": False}, {"head_before_pooling": False, "inner_activation": "identity"}),
    ("simple_vit", {"logit_layer": True, "logit_bias": -2.5}, {"logit_bias": -2.5, "head_before_pooling": True}),
    ("simple_vit", {"logit_layer": False}, {"logit_bias": None}),
]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind, model, fields", SETTINGS)
def test_hyper_parameters_tell_what_tensors_do_not(tmp_path, kind, model, fields, zipped):
    torch.save(lightning(random_state(SMALL[kind]), **model), tmp_path / "last.ckpt", _use_new_zipfile_serialization=zipped)
    config = from_bcosification(tmp_path / "last.ckpt").config
    assert {name: getattr(config, name) for name in fields} == fields
    assert from_bcosification(tmp_path / "last.ckpt", b=1.25).config.b == 1.25


def test_a_head_after_pooling_biases_and_learned_exponents_are_read_off_the_tensors():
    state = random_state(resnet([1, 2], [4, 8], 1, 5, gap=False))
    biases = {
        name.replace("weight", "bias"): value[:, 0] if value.dim() == 2 else value for name, value in state.items() if re.search("bn.*weight|1.weight", name)
    }
    biases |= {"model.model.fc.linear.bias": torch.randn(5)}
    exponents = {name.replace("linear.weight", "b"): torch.tensor(-0.25) for name in state if name.endswith("linear.weight")}
    made = lightning({**state, **biases, **exponents}, bcosify_args={"learn_b": True})
    model = from_bcosification(made)
    assert model.config.keep_biases and model.config.learnable_b and not model.config.head_before_pooling
    assert {parameter.item() for name, parameter in model.named_parameters() if name.endswith(".b")} == {1.75}  # stored by its distance from 2
    assert torch.equal(model.classifier[1].bias, biases["model.model.fc.linear.bias"])


def without(state, end):
    return {name: value for name, value in state.items() if not name.endswith(end)}


# what is wrong -> what the error says
REFUSED = {
    "a tensor is missing": (lambda state: without(state, "layer2.1.conv2.linear.weight"), r"missing: \['resnet.encoder.stages.1.layers.1.layer.1.convolution"),
    "a tensor that tells a size is missing": (lambda state: without(state, "layer2.0.conv2.linear.weight"), "missing: 'layer2.0.conv2.weight'"),
    "tensors beside": (lambda state: state | {"probe.weight": torch.ones(1), "model.model.x": torch.ones(1)}, r"unexpected: \['probe.weight', 'x'\]"),
    "another shape": (lambda state: state | {"model.model.bn1.weight": torch.ones(3)}, r"normalization.weight: got shape \[3\], expected \[4\]"),
    "three channels": (lambda state: state | {"model.model.conv1.linear.weight": torch.ones(4, 3, 7, 7)}, r"got shape \[4, 3, 7, 7\], expected \[4, 6, 7, 7\]"),
    "an average of other tensors": (
        lambda state: state | random_state(SMALL["resnet"], "ema.module.model.") | {"model.x": torch.ones(1)},
        "unexpected: .*model.x",
    ),
    "names of B-cos v2": (lambda state: {name.removeprefix("model.model."): value for name, value in state.items()}, "B-cos v2"),
    "settings of B-cos v2": (lambda state: {"state_dict": state, "hyper_parameters": {"model": {"bcos_args": {"b": 2}}}}, "bcosify_args"),
    "pictures that are not centred": (lambda state: lightning(state, bfy_mean_zero=True), "bfy_mean_zero"),
    "another architecture": (
        lambda state: {"model.encoder.weight": torch.ones(1), "model.head.bias": torch.ones(1)},
        r"such as \['encoder.weight', 'head.bias'\]",
    ),
    "nothing": (lambda state: {}, "got 0 tensors"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_wrong_state_dicts_are_refused_by_name(case):
    change, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        from_bcosification(change(random_state(SMALL["resnet"])))


class Malicious:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("damage", ["malicious", "objects", "truncated", "text", "empty"])
def test_a_file_that_is_no_checkpoint_is_refused_and_nothing_in_it_is_run(tmp_path, damage):
    file, trace, whole = tmp_path / "last.ckpt", tmp_path / "trace", lightning(random_state(SMALL["resnet"]))
    beside = {"malicious": Malicious(trace), "objects": pathlib.PurePosixPath("runs")}.get(damage)
    torch.save(whole | {"callbacks": beside}, file)
    if damage in ("truncated", "text", "empty"):
        file.write_bytes({"truncated": file.read_bytes()[:-3000], "text": b"not a checkpoint", "empty": b""}[damage])
    with pytest.raises(ValueError, match=r"Expected a B-cosified network.*torch\.save\(torch\.load\(FILE"):
        from_bcosification(file)
    assert not trace.exists()
