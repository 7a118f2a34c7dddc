"""ResNets of small pictures: the published sizes, the published network written slowly, and its files, with random weights."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from bcos_hf import bcosify
from bcos_hf.checkpoints import cifar_resnet_processor, from_cifar_resnet
from bcos_hf.models.modeling_cifar_resnet import CifarResNetConfig, CifarResNetForImageClassification


def norm(channels, name):
    made = {
        "weight": torch.rand(channels) + 0.5,
        "bias": torch.randn(channels),
        "running_mean": torch.randn(channels),
        "running_var": torch.rand(channels) + 0.5,
    }
    return {f"module.{name}.{key}": value for key, value in made.items()}


def published(depths=(2, 1, 1), widths=(4, 8, 12)):
    """A state dict of theirs."""
    torch.manual_seed(0)
    state = {"module.conv1.weight": torch.randn(widths[0], 3, 3, 3), **norm(widths[0], "bn1")}
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), 1):
        for layer in range(depth):
            channels = widths[max(stage - 2, 0)] if layer == 0 else width
            for part in (1, 2):
                place = f"layer{stage}.{layer}"
                state[f"module.{place}.conv{part}.weight"] = torch.randn(width, channels if part == 1 else width, 3, 3) / 9
                state |= norm(width, f"{place}.bn{part}")
    return state | {"module.linear.weight": torch.randn(10, widths[-1]), "module.linear.bias": torch.randn(10)}


def slow(state, x, depths=(2, 1, 1)):
    """Section 4.2 of the paper: 6 n + 2 layers with identity shortcuts, those to more channels of option A."""

    def convolved(x, place, convolution, normalization, stride=1):
        x = F.conv2d(x, state[f"module.{place}{convolution}.weight"], stride=stride, padding=1)
        norm = [state[f"module.{place}{normalization}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *norm, eps=1e-5)

    x = convolved(x, "", "conv1", "bn1").relu()
    for stage, depth in enumerate(depths, 1):
        for layer in range(depth):
            stride = 2 if stage > 1 and layer == 0 else 1
            y = convolved(x, f"layer{stage}.{layer}.", "conv1", "bn1", stride).relu()
            y = convolved(y, f"layer{stage}.{layer}.", "conv2", "bn2")
            if y.shape != x.shape:
                zeros = torch.zeros(len(y), (y.shape[1] - x.shape[1]) // 2, *y.shape[2:])
                x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], 1)
            x = (x + y).relu()
    return x.mean((2, 3)) @ state["module.linear.weight"].T + state["module.linear.bias"]


@pytest.mark.parametrize("n, parameters", [(3, 0.27), (5, 0.46), (7, 0.66), (9, 0.85), (18, 1.7)])  # table 6 of the paper, in millions
def test_published_sizes(n, parameters):
    with torch.device("meta"):
        model = CifarResNetForImageClassification(CifarResNetConfig(depths=[n] * 3, num_labels=10))
    assert round(model.num_parameters() / 1e6, 2 if parameters < 1 else 1) == parameters


@pytest.mark.parametrize("fields", [dict(layer_type="bottleneck"), dict(hidden_sizes=[16, 8, 32])])
def test_a_network_that_cannot_be_is_refused(fields):
    with pytest.raises(ValueError, match="expected layer_type 'basic' and widths that do not fall"):
        CifarResNetConfig(**fields)


@pytest.mark.parametrize("kind", ["dict", "th", "safetensors"])
def test_files_of_theirs_are_the_network_written_slowly(kind, tmp_path):
    state, x = published(), torch.randn(3, 3, 32, 32)
    source = state if kind == "dict" else tmp_path / f"resnet.{kind}"
    if kind == "th":
        torch.save({"state_dict": state, "best_prec1": 91.7}, source)
    elif kind == "safetensors":
        save_file(state, source)
    model = from_cifar_resnet(source)
    torch.testing.assert_close(model(x).logits, slow(state, x), rtol=1e-5, atol=1e-5)
    assert model.config.id2label[9] == "truck" and not model.training
    twin = bcosify(model, b=1.0, keep_biases=True, logit_bias=None, head_before_pooling=False)
    torch.testing.assert_close(twin(x).logits, slow(state, x), rtol=1e-5, atol=1e-4)
    assert cifar_resnet_processor(source)([torch.zeros(3, 40, 40)], return_tensors="pt")["pixel_values"].shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: {name: value for name, value in state.items() if "conv1" not in name}, "no stem"),
        (lambda state: {}, "no stem"),
        (lambda state: {name: value for name, value in state.items() if "linear.bias" not in name}, r"missing: \['classifier.1.bias'\]"),
        (lambda state: state | {"module.more": torch.zeros(1)}, r"unexpected: \['module.more'\]"),
    ],
)
def test_other_tensors_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        from_cifar_resnet(change(published()))


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "resnet.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="which is damaged"):
        from_cifar_resnet(tmp_path / "resnet.safetensors")
