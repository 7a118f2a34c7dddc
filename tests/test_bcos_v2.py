"""B-cos v2's published checkpoints: their layouts for all names of the table, with random weights; and their networks written slowly, under their names."""

import hashlib
import math

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForImageClassification

from bcos_hf import bcosify
from bcos_hf.checkpoints import bcos_v2_processor, from_bcos_v2, reading
from bcos_hf.checkpoints.bcos_v2 import FAMILIES, model_from_state, published_as
from bcos_hf.checkpoints.bcos_v2_models import MODELS, RELEASE
from bcos_hf.checkpoints.names import renamed


NORM = ("weight", "running_mean", "running_var", "num_batches_tracked")  # of a batch norm without bias
# of these the README's last digit is not that of the layers which the same repository builds (pretrained.py there has 25.54 for ResNet-50)
COUNTED = {"resnet50": 25.54, "resnet50_long": 25.54, "simple_vit_s_patch16_224": 22.22, "vitc_b_patch1_14": 81.33}


# -- the layouts, as bcos/models/*.py builds them: name -> shape


def conv(name, rows, columns, size=1):
    return {f"{name}.linear.weight": (rows, columns, size, size)}


def bnu(name, channels):
    return {f"{name}.{key}": () if key.startswith("num") else (channels,) for key in NORM}


def resnet_layout(fields, groups=1, group_width=64):
    bottleneck, widths = fields["layer_type"] == "bottleneck", fields["hidden_sizes"]
    stem = widths[0] // 4 if bottleneck else widths[0]
    made, channels = conv("conv1", stem, 6, 7) | bnu("bn1", stem), stem
    for stage, (out, depth) in enumerate(zip(widths, fields["depths"], strict=True), start=1):
        for block in range(depth):
            name = f"layer{stage}.{block}"
            inner = int(out // 4 * group_width / 64) * groups if bottleneck else out
            shapes = [(inner, channels, 1), (inner, inner // groups, 3), (out, inner, 1)] if bottleneck else [(out, channels, 3), (out, out, 3)]
            for number, (rows, columns, size) in enumerate(shapes, start=1):
                made |= conv(f"{name}.conv{number}", rows, columns, size) | bnu(f"{name}.bn{number}", rows)
            if block == 0 and (stage > 1 or channels != out):
                made |= conv(f"{name}.downsample.0", out, channels) | bnu(f"{name}.downsample.1", out)
            channels = out
    return made | conv("fc", 1000, channels)


def densenet_layout(fields):
    channels, growth = fields["embedding_size"], fields["growth_rate"]
    made = conv("features.conv0", channels, 6, 7) | bnu("features.norm0", channels)
    for block, depth in enumerate(fields["depths"], start=1):
        for layer in range(1, depth + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            made |= bnu(f"{name}.norm1", channels) | conv(f"{name}.conv1", 4 * growth, channels)
            made |= bnu(f"{name}.norm2", 4 * growth) | conv(f"{name}.conv2", growth, 4 * growth, 3)
            channels += growth
        if block < len(fields["depths"]):
            made |= bnu(f"features.transition{block}.norm", channels) | conv(f"features.transition{block}.conv", channels // 2, channels)
            channels //= 2
    return made | bnu("features.norm5", channels) | conv("classifier", 1000, channels)


def vgg_layout(fields, widths=(64, 128, 256, 512, 512), hidden=4096):
    made, number, channels = {}, 0, 6
    for width, depth in zip(widths, fields["depths"], strict=True):
        for _ in range(depth):
            made |= conv(f"features.{number}", width, channels, 3) | bnu(f"features.{number + 1}", width)
            number, channels = number + 2, width
        number += 1  # the pooling
    return made | conv("classifier.0", hidden, channels, 7) | conv("classifier.1", hidden, hidden) | conv("classifier.2", 1000, hidden)


def convnext_layout(fields):
    norm = bnu if fields["norm_layer"] == "batch_norm" else lambda name, channels: {f"{name}.weight": (channels,)}
    widths = fields["hidden_sizes"]
    made = conv("features.0", widths[0], 6, 4) | norm("features.1", widths[0])
    for stage, (width, depth) in enumerate(zip(widths, fields["depths"], strict=True)):
        if stage:
            name = f"features.{2 * stage + 1}"
            made |= norm(f"{name}.0", widths[stage - 1]) | conv(f"{name}.1", width, widths[stage - 1], 2)
        for layer in range(depth):
            name = f"features.{2 * stage + 2}.{layer}"
            made |= {f"{name}.layer_scale": (width, 1, 1)} | conv(f"{name}.block.0", width, 1, 7) | norm(f"{name}.block.1", width)
            made |= conv(f"{name}.block.2", 4 * width, width) | conv(f"{name}.block.3", width, 4 * width)
    return made | norm("classifier.0", widths[-1]) | conv("classifier.1", 1000, widths[-1])


def vit_layout(fields, bcos=True):
    width, wide, channels = fields["hidden_size"], fields["intermediate_size"], 6 if bcos else 3

    def linear(name, *shape, bias=True):
        wrapped = f"{name}.linear" if bcos else name
        return {f"{wrapped}.weight": shape} | ({f"{wrapped}.bias": shape[:1]} if bias and not bcos else {})

    def norm(name, size):
        return {f"{name}.{key}": (size,) for key in (("weight",) if bcos else ("weight", "bias"))}

    made = {}
    for index, out in enumerate(fields["stem_channels"]):
        name = f"to_patch_embedding.conv_stem.{3 * index}"
        made |= linear(name, out, channels, 3, 3) | norm(f"to_patch_embedding.conv_stem.{3 * index + 1}", out)
        channels = out
    made |= linear("to_patch_embedding.linear", width, channels * fields["patch_size"] ** 2)
    for index in range(fields["num_hidden_layers"]):
        name = f"transformer.encoder_{index}"
        made |= norm(f"{name}.attn.norm", width) | {f"{name}.attn.to_qkv.weight": (3 * width, width)}
        made |= linear(f"{name}.attn.to_out", width, width, bias=False) | norm(f"{name}.ff.net.norm", width)
        made |= linear(f"{name}.ff.net.linear1", wide, width) | linear(f"{name}.ff.net.linear2", width, wide)
    made |= norm("linear_head.norm", width) | linear("linear_head.linear", 1000, width)
    return {f"0.{name}" if bcos else name: shape for name, shape in made.items()}


LAYOUTS = {
    "resnet": resnet_layout,
    "resnext": lambda fields: resnet_layout(fields, 32, 4),
    "densenet": densenet_layout,
    "vgg": vgg_layout,
    "convnext": convnext_layout,
    "simple_vit": vit_layout,
    "standard_vit": lambda fields: vit_layout(fields, bcos=False),
}


def random_state(layout):
    """Random tensors of a layout; variances and weights of norms are positive."""
    torch.manual_seed(0)
    made = {}
    for name, shape in layout.items():
        positive = len(shape) == 1 and not name.endswith("mean")
        made[name] = torch.rand(shape) + 0.5 if positive else torch.randn(shape) if shape else torch.tensor(3)
    scale = {"running_var": 0.03, "layer_scale": 0.3}  # the variance makes up for what a layer of unit rows takes away
    return {name: value * scale.get(name.rpartition(".")[2], 1) for name, value in made.items()}


def test_the_table_is_whole():
    assert len(MODELS) == 34 and len({published.file for published in MODELS.values()}) == 34
    assert {published.family for published in MODELS.values()} == FAMILIES.keys() == LAYOUTS.keys()
    assert all(reading.HASH.search(RELEASE + published.file) and 50 < published.top1 < 81 for published in MODELS.values())


@pytest.mark.parametrize("name", MODELS)
def test_every_published_layout_is_a_model_of_ours_at_full_size(name):
    """Names, shapes and, as the README gives it, the number of parameters."""
    published = MODELS[name]
    cls, table, common, strip = FAMILIES[published.family]
    with torch.device("meta"):
        model = cls(cls.config_class(**common, **published.fields, num_labels=1000))
        theirs = {key: torch.empty(shape) for key, shape in LAYOUTS[published.family](published.fields).items()}
    renewed, unknown = renamed(theirs, table, strip)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert not unknown and {key: reading._fitted(value, shapes.get(key)).shape for key, value in renewed.items()} == shapes
    assert abs(model.num_parameters() / 1e6 - COUNTED.get(name, published.parameters)) < 0.00501


@pytest.mark.parametrize("name", ["resnet18", "simple_vit_ti_patch16_224", "standard_vitc_ti_patch1_14"])
def test_a_state_becomes_a_model_and_every_tensor_is_taken_once(name):
    published = MODELS[name]
    state = random_state(LAYOUTS[published.family](published.fields))
    model = from_bcos_v2(state, name)
    taken, given = (sorted(value.double().sum().item() for value in tensors.values()) for tensors in (model.state_dict(), state))
    assert taken == pytest.approx(given, rel=1e-12) and not model.training and model.dtype == torch.float32
    assert hasattr(model, "explain") == (not name.startswith("standard"))
    if name.startswith("standard"):
        assert type(bcosify(model)).__name__ == "BcosSimpleViTForImageClassification"


# -- the networks, written slowly, for the families of which there are no golden tensors


def slow_bcos(state, name, x, **geometry):
    """B = 2, unit rows: lin |lin| / sqrt(|patch|^2 + 1e-6) of each output, the patches of each group taken apart."""
    weight, groups = state[f"{name}.linear.weight"], geometry.pop("groups", 1)
    made = []
    for part, rows in zip(x.chunk(groups, 1), weight.chunk(groups), strict=True):
        patches = F.unfold(part, weight.shape[-2:], **geometry)
        lin = (rows / rows.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).flatten(1) @ patches
        made.append(lin * lin.abs() / (patches.square().sum(1, keepdim=True) + 1e-6).sqrt())
    stride, padding = geometry.get("stride", 1), geometry.get("padding", 0)
    return torch.cat(made, 1).unflatten(2, [(side + 2 * padding - weight.shape[-1]) // stride + 1 for side in x.shape[-2:]])


def slow_norm(state, name, x):
    """x / sqrt(running variance + 1e-5), nothing subtracted; or the norm over the channels of each position, eps 1e-6."""
    weight, variance = state[f"{name}.weight"].view(-1, 1, 1), state.get(f"{name}.running_var")
    if variance is not None:
        return weight * x / (variance.view(-1, 1, 1) + 1e-5).sqrt()
    centred = x - x.mean(1, keepdim=True)
    return weight * centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()


def slow_resnext(state, x, fields):
    x = F.avg_pool2d(slow_norm(state, "bn1", slow_bcos(state, "conv1", x, stride=2, padding=3)), 3, 2, 1)
    for stage, depth in enumerate(fields["depths"], start=1):
        for block in range(depth):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = slow_norm(state, f"{name}.bn1", slow_bcos(state, f"{name}.conv1", x))
            y = slow_norm(state, f"{name}.bn2", slow_bcos(state, f"{name}.conv2", y, stride=stride, padding=1, groups=fields["groups"]))
            y = slow_norm(state, f"{name}.bn3", slow_bcos(state, f"{name}.conv3", y))
            x = y + (x if block else slow_norm(state, f"{name}.downsample.1", slow_bcos(state, f"{name}.downsample.0", x, stride=stride)))
    return slow_bcos(state, "fc", x)


def slow_vgg(state, x, fields):
    number = 0
    for depth in fields["depths"]:
        for _ in range(depth):
            x = slow_norm(state, f"features.{number + 1}", slow_bcos(state, f"features.{number}", x, padding=1))
            number += 2
        x, number = F.avg_pool2d(x, 2), number + 1
    return slow_bcos(state, "classifier.2", slow_bcos(state, "classifier.1", slow_bcos(state, "classifier.0", x, padding=3)))


def slow_convnext(state, x, fields):
    x = slow_norm(state, "features.1", slow_bcos(state, "features.0", x, stride=4))
    for stage, depth in enumerate(fields["depths"]):
        if stage:
            x = slow_bcos(state, f"features.{2 * stage + 1}.1", slow_norm(state, f"features.{2 * stage + 1}.0", x), stride=2)
        for layer in range(depth):
            name = f"features.{2 * stage + 2}.{layer}"
            y = slow_norm(state, f"{name}.block.1", slow_bcos(state, f"{name}.block.0", x, padding=3, groups=x.shape[1]))
            x = x + state[f"{name}.layer_scale"] * slow_bcos(state, f"{name}.block.3", slow_bcos(state, f"{name}.block.2", y))
    return slow_bcos(state, "classifier.1", slow_norm(state, "classifier.0", x))


_GROUPED = dict(depths=[2, 1], hidden_sizes=[16, 32], embedding_size=4, layer_type="bottleneck", groups=2, width_per_group=64)
_VGG = dict(depths=[1, 1, 2, 2, 2], hidden_sizes=[4, 4, 6, 6, 8], classifier_size=10)
_CONVNEXT = dict(depths=[1, 2], hidden_sizes=[4, 8], num_stages=2)
SLOW = {
    "resnext": (_GROUPED, lambda fields: resnet_layout(fields, 2, 64), slow_resnext),
    "vgg": (_VGG, lambda fields: vgg_layout(fields, _VGG["hidden_sizes"], 10), slow_vgg),
    "convnext bnu": (dict(_CONVNEXT, norm_layer="batch_norm"), convnext_layout, slow_convnext),
    "convnext pn": (dict(_CONVNEXT, norm_layer="layer_norm"), convnext_layout, slow_convnext),
}


@pytest.mark.parametrize("kind", SLOW)
def test_logits_are_those_of_the_network_written_slowly(kind):
    fields, layout_of, slow = SLOW[kind]
    state, x = random_state(layout_of(fields)), torch.rand(2, 3, 64, 64, dtype=torch.float64)
    model = model_from_state(kind.split()[0], dict(fields, num_labels=1000), state, kind).double()
    expected = slow({name: value.double() for name, value in state.items()}, torch.cat([x, 1 - x], 1), fields).mean((2, 3))
    assert expected.std(1).min() > 3e-5
    torch.testing.assert_close(model(x).logits, expected - math.log(999), rtol=0, atol=1e-10)
    explanation = model.explain(x, targets=[[3, 7]] * 2)
    torch.testing.assert_close(explanation.contributions.sum((-2, -1)) + explanation.constant, explanation.explained_logits, rtol=0, atol=1e-10)


def test_a_batch_norm_in_place_of_layer_norms_learns_its_variance_from_maps_alone(tmp_path):
    fields = SLOW["convnext bnu"][0]
    model = model_from_state("convnext", dict(fields, num_labels=1000), random_state(convnext_layout(fields)), "").train()
    seen = []
    model.convnext.layernorm.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    model(torch.rand(2, 3, 32, 32))
    assert [x.shape for x in seen] == [(2, 4 * 4, 8)] and model.convnext.layernorm.num_batches_tracked == 4
    before = random_state(convnext_layout(fields))["classifier.0.running_var"]
    torch.testing.assert_close(model.convnext.layernorm.running_var, 0.9 * before + 0.1 * seen[0].flatten(0, 1).var(0, unbiased=False))
    model.eval().save_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    assert torch.equal(loaded(seen[0].new_ones(1, 3, 32, 32)).logits, model(seen[0].new_ones(1, 3, 32, 32)).logits)


# -- files, addresses, and what is refused


def test_which_model_it_is_and_its_pictures(tmp_path):
    assert published_as("somewhere/resnet_50_long-ef38a88533.pth")[0] == "resnet50_long" and published_as("resnet50")[0] == "resnet50"
    for source, name, got in (({}, None, "a state dict without a name"), ("x.pth", None, "'x.pth' without a name"), ({}, "resnet5", "name='resnet5'")):
        with pytest.raises(ValueError, match=f"resnet18, resnet34, .*; got {got}"):
            from_bcos_v2(source, name)
    for name, side, normalised in (("resnet18", 256, False), ("convnext_tiny", 232, False), ("standard_vitc_s_patch1_14", 256, True)):
        processor = bcos_v2_processor(name)
        assert processor.size.shortest_edge == side and processor.do_normalize == normalised
        pixels = processor(torch.full((3, 300, 400), 255, dtype=torch.uint8), return_tensors="pt")["pixel_values"]
        assert pixels.shape == (1, 3, 224, 224) and (pixels.max() > 2 if normalised else torch.equal(pixels, torch.ones_like(pixels)))


def test_another_architecture_is_refused_by_name():
    state = random_state(resnet_layout(dict(depths=[1, 1], hidden_sizes=[8, 16], layer_type="basic")))
    with pytest.raises(ValueError, match=r"B-cos v2's vgg11_bnu; missing: \['classifier.0.weight'.*unexpected: \['bn1.num_batches_tracked'"):
        from_bcos_v2(state, "vgg11_bnu")
    layout = LAYOUTS["resnet"](MODELS["resnet18"].fields)
    state = {name: torch.zeros(()).expand(shape) for name, shape in layout.items()}
    with pytest.raises(ValueError, match=r"unexpected: none; classifier.1.weight: got shape \[10, 512, 1, 1\], expected \[1000, 512\]"):
        from_bcos_v2(state | {"fc.linear.weight": torch.zeros(10, 512, 1, 1)}, "resnet18")
    with pytest.raises(ValueError, match=r"missing: none; unexpected: \['fc.weight'\]"):  # would take the place of fc.linear.weight
        from_bcos_v2(state | {"fc.weight": torch.zeros(1000, 512)}, "resnet18")


class Malicious:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_malicious_or_damaged_file_is_refused_and_nothing_in_it_is_run(tmp_path):
    file, trace = tmp_path / "resnet_18-68b4160fff.pth", tmp_path / "trace"
    torch.save({"conv1.linear.weight": Malicious(trace)}, file)
    with pytest.raises(ValueError, match=r"Expected B-cos v2's resnet18: .*Nothing in it was run"):
        from_bcos_v2(file)
    torch.save(random_state(conv("conv1", 64, 6, 7)), file)
    file.write_bytes(file.read_bytes()[:-3000])
    with pytest.raises(ValueError, match=r"Expected B-cos v2's resnet18: .*damaged"):
        from_bcos_v2(file)
    assert not trace.exists()


def test_an_address_is_fetched_once_and_must_have_the_content_that_its_name_says(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    torch.save({"a": torch.ones(2)}, tmp_path / "state.pt")
    content = (tmp_path / "state.pt").read_bytes()
    good = tmp_path / f"state-{hashlib.sha256(content).hexdigest()[:10]}.pth"
    wrong = tmp_path / "state-0123456789.pth"
    for file in (good, wrong):
        file.write_bytes(content)
    for file in (good, tmp_path / "state.pt"):
        assert torch.equal(reading.state_of(file.as_uri(), "a state")["a"], torch.ones(2))
        file.unlink()
        assert torch.equal(reading.state_of(file.as_uri(), "a state")["a"], torch.ones(2))  # from the cache
    (tmp_path / "other").mkdir()
    torch.save({"a": torch.zeros(2)}, tmp_path / "other" / "state.pt")
    assert torch.equal(reading.state_of((tmp_path / "other" / "state.pt").as_uri(), "a state")["a"], torch.zeros(2))  # of the same name, elsewhere
    with pytest.raises(ValueError, match="expected the content that its name says"):
        reading.state_of(wrong.as_uri(), "a state")
    with pytest.raises(OSError, match="could not be fetched"):
        reading.state_of((tmp_path / "none.pth").as_uri(), "a state")
    with pytest.raises(ValueError, match="expected an address that begins with https://"):
        reading.state_of("http://example.org/state.pth", "a state")
    (tmp_path / "damaged.pt").write_bytes(content[:-300])
    with pytest.raises(ValueError, match=r"Expected a state: .*damaged.pt', which is damaged"):
        reading.state_of((tmp_path / "damaged.pt").as_uri(), "a state")
    assert sorted(path.name for path in (tmp_path / "cache").rglob("*.p*")) == sorted([good.name, "state.pt", "state.pt"])


def test_a_name_is_enough_where_the_file_is_in_the_cache_of_torch_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = MODELS["vitc_ti_patch1_14"]
    file = tmp_path / "hub" / "checkpoints" / published.file
    file.parent.mkdir(parents=True)
    torch.save(random_state(vit_layout(published.fields)), file)
    model = from_bcos_v2("vitc_ti_patch1_14")
    for source in (file, RELEASE + published.file):  # whose name says which model it is
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in from_bcos_v2(source).state_dict().items())
