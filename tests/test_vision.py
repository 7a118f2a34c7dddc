"""What is special to pictures: how they enter, other sizes, CNN rules, bad input."""

import copy
import math

import pytest
import torch
from conftest import IMAGE, batch_of, same, tiny
from torch import nn
from torch.nn import functional as F

from bcos_hf import bcosify
from bcos_hf.models import bcos_batch_norm, bcos_inputs
from bcos_hf.models.bcos_layers import Bcos, BcosConv2d
from bcos_hf.models.modeling_densenet import DENSENETS, DenseNetConfig, DenseNetForImageClassification
from bcos_hf.models.modeling_resnext import ResNeXtConfig, ResNeXtForImageClassification
from bcos_hf.models.modeling_simple_vit import SimpleViTConfig, sincos_positions
from bcos_hf.models.modeling_vgg import VGGS, VGGConfig, VGGForImageClassification


CONVOLUTIONAL = ("resnet", "cifar_resnet", "resnext", "densenet", "convnext", "vgg")
_SMALL = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, image_size=16, patch_size=4)
VARIANTS = [
    ("resnet", dict(layer_type="basic", hidden_sizes=[8, 16])),
    ("resnet", dict(downsample_in_first_stage=True)),
    ("resnet", dict(downsample_in_bottleneck=True)),
    ("resnet", dict(hidden_act="gelu")),
    ("resnet", dict(embedding_size=3)),
    ("cifar_resnet", dict(hidden_sizes=[8, 8, 11], depths=[1, 1, 1])),
    ("cifar_resnet", dict(downsample_in_first_stage=True)),
    ("resnext", dict(groups=4, width_per_group=32, downsample_in_bottleneck=True)),
    ("resnext", dict(groups=1)),
    ("densenet", dict(depths=[1, 1, 1], bottleneck=4)),
    ("convnext", dict(layer_scale_init_value=0.0, drop_path_rate=0.1)),
    ("vgg", dict(use_batch_norm=False, depths=[2, 1])),
    ("vgg", dict(dense=True)),
    ("vit", dict(qkv_bias=False, hidden_act="gelu_new")),
    ("vit", dict(image_size=[16, 16], patch_size=8)),
    ("dinov2", dict(use_swiglu_ffn=False, drop_path_rate=0.1)),
    ("simple_vit", dict(stem_channels=[4, 8, 8], patch_size=1, head_dim=4)),
    ("simple_vit", dict(num_channels=1)),
    ("clip", dict(vision_config=dict(_SMALL, patch_size=8, hidden_act="gelu"))),
    ("siglip", dict(vision_config=dict(_SMALL, num_channels=1))),
]


def pictures(config, size=16):
    return torch.randn(2, config.num_channels, size, size, dtype=torch.float64)


@pytest.mark.parametrize("family, fields", VARIANTS, ids=lambda value: str(value))
def test_laws_hold_for_every_variant(family, fields):
    standard = tiny(family, **fields)
    vision = getattr(standard.config, "vision_config", standard.config)
    x = pictures(vision)
    twin = bcosify(standard, **same(family))
    torch.testing.assert_close(twin(x).logits, standard(x).logits, rtol=0, atol=1e-12)
    explanation = bcosify(standard, keep_biases=True).explain(x, targets=[[0, 2]] * 2)
    assert explanation.relative_residual.max() < 1e-10
    assert explanation.contributions.shape == (2, 2, 16, 16) and explanation.weights.shape == (2, 2, 2 * vision.num_channels, 16, 16)


@pytest.mark.parametrize("family", ["resnet", "cifar_resnet", "resnext", "densenet", "vgg"])
def test_classifying_before_pooling_is_the_same_where_all_is_linear(family):
    standard, x = tiny(family), batch_of(family)["pixel_values"]
    twin = bcosify(standard, **{**same(family), "head_before_pooling": True})
    torch.testing.assert_close(twin(x).logits, standard(x).logits, rtol=0, atol=1e-12)
    assert twin._head().eps == BcosConv2d.eps


def test_head_before_pooling_is_the_mean_over_positions(image_family):
    model, x = bcosify(tiny(image_family), head_before_pooling=True), batch_of(image_family)["pixel_values"]
    hidden = model._base_output(x).last_hidden_state
    positions = model._positions(hidden)
    slow = torch.stack([model._head()(positions[:, i]) for i in range(positions.shape[1])]).mean(0)
    torch.testing.assert_close(model(x).logits, slow, rtol=0, atol=1e-12)
    assert model.explain(x).relative_residual.max() < 1e-10
    loss, logits = model(x, labels=torch.tensor([0, 1, 2]), return_dict=False)[:2]
    torch.testing.assert_close(loss, F.cross_entropy(logits, torch.tensor([0, 1, 2])))


@pytest.mark.parametrize("dim", [2, 4])
def test_the_split_stem_is_the_layer_it_came_from(dim):
    weight, z = torch.randn(5, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, 12, 12, dtype=torch.float64)
    encoded = bcos_inputs.InputEncoding("normalized")(z)
    if dim == 4:
        ours, plain = F.conv2d(encoded, bcos_inputs.split_weight(weight, 3)), F.conv2d(z, weight)
    else:  # one patch, channels innermost
        flat = weight.permute(0, 2, 3, 1).flatten(1)
        patch = [part[:, :, :4, :4].permute(0, 2, 3, 1).flatten(1) for part in (encoded, z)]
        ours, plain = patch[0] @ bcos_inputs.split_weight(flat, 3).t(), patch[1] @ flat.t()
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind, channels", [("normalized", 6), ("add_inverse", 6), ("none", 3)])
def test_encodings(image_family, kind, channels):
    model = bcosify(tiny(image_family), input_encoding=kind)
    x = batch_of(image_family)["pixel_values"].sigmoid()
    explanation = model.explain(x)
    assert explanation.weights.shape[2] == channels and explanation.relative_residual.max() < 1e-10
    assert torch.equal(explanation.pixel_values, x)
    encoded = model._input_encoding()(x)
    expected = {"normalized": -x, "add_inverse": 1 - x}.get(kind)
    assert torch.equal(encoded, x if expected is None else torch.cat([x, expected], 1))
    assert len([layer for layer in model.modules() if isinstance(layer, bcos_inputs.BcosStem | bcos_inputs.BcosPatchStem)]) == 1


@pytest.mark.parametrize(
    "kind, x, warns",
    [("normalized", torch.rand(1, 3, 4, 4), True), ("normalized", torch.randn(1, 3, 4, 4), False), ("normalized", torch.zeros(1, 3, 4, 4), False),
     ("add_inverse", torch.randn(1, 3, 4, 4), True), ("add_inverse", torch.rand(1, 3, 4, 4), False), ("none", torch.rand(1, 3, 4, 4), False)],
)  # fmt: skip
def test_values_that_cannot_be_are_said_once(kind, x, warns, monkeypatch):
    encoding, said = bcos_inputs.InputEncoding(kind), []
    monkeypatch.setattr(bcos_inputs.logger, "warning", said.append)
    encoding(x), encoding(x)
    assert len(said) == warns and all("expects values" in text and "image processor" in text for text in said)


def test_other_sizes(image_family):
    model = bcosify(tiny(image_family))
    x = torch.randn(1, 3, 24, 32, dtype=torch.float64)
    more = {"interpolate_pos_encoding": True} if image_family in ("vit", "deit", "clip", "siglip") else {}
    explanation = model.explain(x, **more)
    assert explanation.contributions.shape == (1, 1, 24, 32) and explanation.relative_residual.max() < 1e-10
    if more:
        with pytest.raises((ValueError, RuntimeError), match="size"):  # SigLIP's own code leaves it to torch
            model.explain(x)


def test_a_size_that_patches_do_not_divide():
    with pytest.raises(ValueError, match="patches of 4 divide"):
        bcosify(tiny("simple_vit")).explain(torch.randn(1, 3, 18, 16, dtype=torch.float64))


@pytest.mark.parametrize("bad", [torch.zeros(2, 1, 16, 16), torch.zeros(2, 6, 16, 16), torch.zeros(3, 16, 16), torch.zeros(0, 3, 16, 16), None, [[1.0]]])
def test_pictures_of_another_shape(image_family, bad):
    with pytest.raises(ValueError, match=r"expected a tensor \[N, 3, H, W\]"):
        bcosify(tiny(image_family)).explain(bad)


def test_a_black_picture_is_no_nan(image_family):
    model = bcosify(tiny(image_family)).float()
    explanation = model.explain(torch.zeros(2, 3, 16, 16))
    assert torch.isfinite(explanation.logits).all() and torch.isfinite(explanation.weights).all() and (explanation.contributions == 0).all()
    model.train()(torch.zeros(2, 3, 16, 16)).logits.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_logit_bias_is_that_of_the_labels(image_family):
    model = bcosify(tiny(image_family), num_labels=11)
    assert model.config.logit_bias == "auto" and model.config.logit_bias_value == pytest.approx(-math.log(10))
    assert model(torch.zeros(1, 3, 16, 16, dtype=torch.float64)).logits.shape == (1, 11)


# -- CNN rules


def test_cnn_rules_are_fields():
    standard = tiny("resnet")
    kinds = {name: {type(module).__name__ for module in bcosify(standard, **fields).modules()} for name, fields in {
        "default": {}, "centred": {"batch_norm": "centered"}, "position": {"batch_norm": "position"}, "max": {"max_pool": "keep"},
        "linear": {"inner_activation": "identity"},
    }.items()}  # fmt: skip
    assert {"UncenteredBatchNorm2d", "AvgPool2d", "ReLU"} <= kinds["default"] and "MaxPool2d" not in kinds["default"]
    assert "BcosBatchNorm2d" in kinds["centred"] and "PositionNorm2d" in kinds["position"] and "MaxPool2d" in kinds["max"] and "ReLU" not in kinds["linear"]


@pytest.mark.parametrize("batch_norm", sorted(bcos_batch_norm.BATCH_NORMS))
@pytest.mark.parametrize("inner_activation", ["keep", "identity"])
@pytest.mark.parametrize("keep_biases", [True, False])
def test_contributions_add_up_under_all_cnn_rules(batch_norm, inner_activation, keep_biases):
    for family in CONVOLUTIONAL[:2]:
        model = bcosify(tiny(family), batch_norm=batch_norm, inner_activation=inner_activation, keep_biases=keep_biases, max_pool="keep")
        assert model.explain(**batch_of(family), targets=[[0, 1]] * 3).relative_residual.max() < 1e-10


def test_folding_keeps_the_function_and_unfolded_does_not():
    standard, x = tiny("resnet"), batch_of("resnet")["pixel_values"]
    for batch_norm, kept in (("uncentered", True), ("centered", True), ("uncentered_unfolded", False)):
        twin = bcosify(standard, **{**same("resnet"), "batch_norm": batch_norm})
        assert torch.allclose(twin(x).logits, standard(x).logits, rtol=0, atol=1e-10) == kept


@pytest.mark.parametrize("affine, statistics", [(False, True), (True, False), (False, False)])
def test_a_batch_norm_without_what_folding_needs(affine, statistics):
    standard = copy.deepcopy(tiny("resnet"))
    norm = standard.resnet.embedder.embedder
    norm.normalization = nn.BatchNorm2d(8, affine=affine, track_running_stats=statistics).double().eval()
    if not affine:  # nothing can take up the mean: the twin's own parameters would be new
        with pytest.raises(ValueError, match="affine parameters"):
            bcosify(standard, keep_biases=True)
    elif not statistics:
        with pytest.raises(ValueError, match="running statistics"):
            bcosify(standard, keep_biases=True)


def test_a_second_convolution_of_three_channels_is_left_alone():
    model = bcosify(tiny("resnet", embedding_size=3))
    convolutions = [module for module in model.modules() if isinstance(module, BcosConv2d)]
    assert convolutions[0].in_channels == 6 and convolutions[1].in_channels == 3


def test_a_half_precision_checkpoint_is_converted_in_float32(tmp_path):
    standard = tiny("resnet").float()
    standard.resnet.embedder.embedder.normalization.running_var.fill_(1e6)  # more than float16 holds
    standard.save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"float32"', '"float16"'))
    twin = bcosify(tmp_path)
    assert twin.dtype == torch.float32 and torch.isfinite(twin.resnet.embedder.embedder.normalization.running_var).all()


def test_positions_are_the_published_ones():
    """The formula of SimpleViT's appendix, written slowly: sin and cos of x / 10000^(i / (d/4 - 1)), then of y."""
    made = sincos_positions(2, 3, 16, torch.zeros(1, dtype=torch.float64))
    for y in range(2):
        for x in range(3):
            slow = [f(p / 10000 ** (i / 3)) for p in (x, y) for f in (math.sin, math.cos) for i in range(4)]
            torch.testing.assert_close(made[3 * y + x], torch.tensor(slow, dtype=torch.float64), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="multiple of 4"):
        SimpleViTConfig(hidden_size=30)


def test_from_scratch_models_start_finite_and_learn(image_family):
    model = bcosify(tiny(image_family)).__class__(bcosify(tiny(image_family), input_encoding="add_inverse", weight_norm="unit").config).float()
    x, labels = batch_of(image_family)["pixel_values"].float().sigmoid(), torch.tensor([0, 1, 2])
    optimizer, losses = torch.optim.Adam(model.parameters(), 3e-3), []
    for _ in range(12):
        optimizer.zero_grad()
        losses.append(model.train()(x, labels=labels).loss)
        losses[-1].backward()
        optimizer.step()
    assert torch.isfinite(torch.stack(losses)).all() and losses[-1] < losses[0]
    assert all(layer.bias is None for layer in model.modules() if isinstance(layer, Bcos))


def test_image_families_are_all_tried():
    assert {family for family, _ in VARIANTS} | {"deit"} == set(IMAGE)


@pytest.mark.parametrize(
    "name, parameters", [("densenet121", 7978856), ("densenet161", 28681000), ("densenet169", 14149480), ("densenet201", 20013928)]
)  # the numbers of parameters that torchvision's documentation gives for its weights
def test_densenets_have_the_published_sizes(name, parameters):
    with torch.device("meta"):
        model = DenseNetForImageClassification(DenseNetConfig(**DENSENETS[name], num_labels=1000))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert {"features.conv0.weight", "features.denseblock4.denselayer16.conv2.weight", "features.transition3.conv.weight", "classifier.bias"} <= set(
        model.state_dict()
    )


@pytest.mark.parametrize(
    "name, parameters, with_norms",
    [("vgg11", 132863336, 132868840), ("vgg13", 133047848, 133053736), ("vgg16", 138357544, 138365992), ("vgg19", 143667240, 143678248)],
)  # from the same documentation
def test_vggs_have_the_published_sizes(name, parameters, with_norms):
    for use_batch_norm, expected in ((False, parameters), (True, with_norms)):
        with torch.device("meta"):
            model = VGGForImageClassification(VGGConfig(depths=VGGS[name], use_batch_norm=use_batch_norm, num_labels=1000))
        assert model.num_parameters() == expected


@pytest.mark.parametrize(
    "depths, groups, width, parameters", [([3, 4, 6, 3], 32, 4, 25028904), ([3, 4, 23, 3], 64, 4, 83455272), ([3, 4, 6, 3], 1, 128, 68883240)]
)
def test_resnexts_have_the_published_sizes(depths, groups, width, parameters):
    """resnext50_32x4d, resnext101_64x4d and wide_resnet50_2."""
    with torch.device("meta"):
        model = ResNeXtForImageClassification(ResNeXtConfig(depths=depths, groups=groups, width_per_group=width, num_labels=1000))
    assert model.num_parameters() == parameters


@pytest.mark.parametrize("fields", [dict(layer_type="basic"), dict(groups=0), dict(hidden_sizes=[4, 8, 8, 8])])
def test_a_resnext_that_cannot_be_is_refused(fields):
    with pytest.raises(ValueError, match="ResNeXt: expected layer_type 'bottleneck' and a channel or more in each group; got"):
        ResNeXtConfig(**fields)


def test_a_vgg_is_the_published_one_with_a_linear_layer_first():
    """A map of 7 x 7, flattened, through three linear layers (Simonyan and Zisserman, ICLR 2015, section 2.1)."""
    model, x = tiny("vgg"), torch.randn(2, 3, 28, 28, dtype=torch.float64)
    hidden = model.features(x).flatten(1)
    for layer in (model.classifier[0], model.classifier[3]):
        hidden = (hidden @ layer.weight.flatten(1).T + layer.bias).relu()
    torch.testing.assert_close(model(x).logits, model.classifier[6](hidden))
