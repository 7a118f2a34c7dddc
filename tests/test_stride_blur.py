"""A blur before strides: opt-in, linear, and every position has the same part in what follows."""

import pytest
import torch
from conftest import IMAGE, batch_of, explained_input, same, tiny
from huggingface_hub.errors import StrictDataclassFieldValidationError
from torch import nn
from transformers import AutoModelForImageClassification

from bcos_hf import bcosify
from bcos_hf.calibration import bcosify as calibrated
from bcos_hf.models.bcos_blur import BlurredAvgPool2d, BlurredMaxPool2d, binomial_blur
from bcos_hf.models.bcos_layers import BcosConv2d


STRIDED = ["cifar_resnet", "resnet", "resnext"]  # the others step over no position behind their stem
BLURRED_POOLS = (BlurredAvgPool2d, BlurredMaxPool2d)


def blurred(model):
    modules = model.named_modules()
    return {name for name, module in modules if getattr(module, "blur", False) or isinstance(module, BLURRED_POOLS)}


def test_the_blur_is_the_binomial_kernel():
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    kernel = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
    weight = torch.outer(kernel, kernel).expand(3, 1, 3, 3)
    slow = nn.functional.conv2d(nn.functional.pad(x, (1, 1, 1, 1), mode="replicate"), weight, groups=3)
    torch.testing.assert_close(binomial_blur(x), slow)
    torch.testing.assert_close(binomial_blur(x, 2), slow[..., ::2, ::2])


def test_what_is_constant_stays():
    torch.testing.assert_close(binomial_blur(torch.full((1, 2, 5, 4), 0.3), 2), torch.full((1, 2, 3, 2), 0.3))


@pytest.mark.parametrize("kernel", [1, 3])
def test_every_position_has_the_same_part(kernel):
    shares = {}
    for blur in (False, True):
        layer = BcosConv2d(1, 1, kernel, stride=2, padding=kernel // 2, b=1.0)
        layer.weight.data.fill_(1.0)
        layer.blur, x = blur, torch.ones(1, 1, 16, 16, requires_grad=True)
        layer(x).sum().backward()
        shares[blur] = x.grad[0, 0, 3:-3, 3:-3]
    assert shares[True].std() < 1e-6 < shares[False].std()


@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1)])
@pytest.mark.parametrize("size", [8, 9])
def test_a_blurred_pool_has_the_size_of_the_pool(pool, size):
    x = torch.randn(1, 2, size, size)
    cls = BlurredMaxPool2d if isinstance(pool, nn.MaxPool2d) else BlurredAvgPool2d
    assert cls(3, 2, 1)(x).shape == pool(x).shape


def test_off_nothing_is_blurred(image_family):
    assert not blurred(bcosify(tiny(image_family), b=1.5))


@pytest.mark.parametrize("family", sorted(IMAGE))
@pytest.mark.parametrize("max_pool", ["average", "keep"])
def test_on_contributions_still_add_up(family, max_pool):
    model = bcosify(tiny(family), b=1.5, keep_biases=True, stride_blur=True, max_pool=max_pool)
    batch = batch_of(family)
    explanation = model.explain(**batch, targets=[[0, 1, 2]] * len(batch["pixel_values"]))
    x, rows = explained_input(model, batch).flatten(1), explanation.weights.flatten(2)
    total = torch.einsum("nkx,nx->nk", rows, x) + explanation.constant
    torch.testing.assert_close(total, model(**batch).logits, rtol=0, atol=1e-8)
    with model.explanation_mode():
        assert torch.equal(model(**batch).logits, explanation.logits)


@pytest.mark.parametrize("family", STRIDED)
def test_convolutions_with_a_stride_are_blurred_but_for_the_first(family):
    model = bcosify(tiny(family), stride_blur=True)
    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    stem, *_ = convolutions
    strided = {name for name, module in convolutions.items() if module.stride == (2, 2)} - {stem}
    assert strided
    assert strided == blurred(model) & convolutions.keys()


def test_it_is_saved(tmp_path):
    model = bcosify(tiny("resnet"), b=1.5, stride_blur=True)
    batch = batch_of("resnet")
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert blurred(loaded) == blurred(model)
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("family", STRIDED)
def test_a_refit_makes_up_for_the_blur(family):
    """Targets are the standard layer on what is not blurred, so that a blurred layer gets better by the fit, too."""
    pixels = torch.randn(24, 3, 16, 16, dtype=torch.float64)
    fields = {**same(family), "stride_blur": True}
    model = calibrated(tiny(family), calibration=[pixels], **fields)
    fits = [fit for fit in model.conversion_report.fits if fit["name"] in blurred(model)]
    assert fits
    assert all(fit["r2"] >= fit["r2_before"] for fit in fits)
    assert any(fit["r2"] > fit["r2_before"] for fit in fits)


def test_another_value_is_refused():
    with pytest.raises(StrictDataclassFieldValidationError, match="stride_blur"):
        bcosify(tiny("resnet"), stride_blur="yes")
