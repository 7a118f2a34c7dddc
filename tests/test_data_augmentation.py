"""Random crops, RandAugment and mixup, against their definitions."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data_images import picture

from bcos_hf.data.augmentation import ASPECTS, OPERATIONS, Augmentation, mixup, rand_augment, random_box
from bcos_hf.data.image_inputs import LEFT_OUT


@given(width=st.integers(1, 500), height=st.integers(1, 500), smallest=st.floats(0.01, 1), seed=st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_a_random_box_lies_inside_and_is_as_large_and_wide_as_asked(width, height, smallest, seed):
    random.seed(seed)
    left, upper, right, lower = random_box(width, height, smallest)
    w, h = right - left, lower - upper
    assert 0 <= left < right <= width and 0 <= upper < lower <= height
    rounding = 0.5 / min(w, h)
    assert ASPECTS[0] * (1 - rounding) ** 2 / (1 + rounding) <= w / h <= ASPECTS[1] * (1 + rounding) ** 2 / max(1e-9, 1 - rounding) or min(width, height) < 4


def test_crops_are_uniform_in_area():
    random.seed(0)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) / 10**6 for b in (random_box(1000, 1000, 0.25) for _ in range(2000))]
    fitting = [area for area in areas if area < 0.75]  # larger ones fit in some aspects only
    assert np.mean(fitting) == pytest.approx(0.5, abs=0.02) and np.std(fitting) == pytest.approx(0.5 / math.sqrt(12), abs=0.01)
    assert min(areas) > 0.24 and max(areas) > 0.95


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_keeps_size_and_mode_and_does_nothing_at_strength_zero(name):
    for v in (-1, -1 / 3, 1 / 3, 1):
        changed = OPERATIONS[name](picture(), v)
        assert changed.size == picture().size and changed.mode == "RGB"
    if name not in ("auto_contrast", "equalize"):
        assert np.array_equal(np.asarray(OPERATIONS[name](picture(), 0)), np.asarray(picture())) or name == "solarize"


def test_operations_at_magnitude_ten_of_thirty_are_those_defined():
    x, v = np.asarray(picture()).astype(int), 1 / 3
    same = {
        "brightness": np.trunc(np.clip(x * 1.3, 0, 255)),
        "posterize": x & 0b11111110,  # 8 - round(4/3) bits
        "solarize": np.where(x < 170, x, 255 - x),
        "translate_x": np.pad(x, ((0, 0), (0, 16), (0, 0)))[:, round(150 / 331 * 16 / 3 - 0.01) :][:, :16],
    }
    for name, slow in same.items():
        assert np.abs(np.asarray(OPERATIONS[name](picture(), v)).astype(int) - slow).max() <= (1 if name == "brightness" else 0), name


def test_rand_augment_is_seeded_and_takes_all_operations():
    def once(seed):
        random.seed(seed)
        return np.asarray(rand_augment(picture(), 2, 10))

    assert np.array_equal(once(3), once(3)) and not all(np.array_equal(once(3), once(seed)) for seed in range(4, 8))
    assert np.array_equal(np.asarray(rand_augment(picture(), 0)), np.asarray(picture()))


@pytest.mark.parametrize("wrong", [{"smallest_crop": 0}, {"flip": 1.5}, {"operations": -1}, {"magnitude": 31}])
def test_augmentation_refuses_what_is_out_of_range(wrong):
    with pytest.raises(ValueError, match="expected 0 < smallest_crop <= 1"):
        Augmentation((8, 8), **wrong)


@given(count=st.integers(1, 9), classes=st.integers(2, 5), alpha=st.floats(0.05, 5), seed=st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_mixed_labels_are_shares_and_pictures_mix_alike(count, classes, alpha, seed):
    torch.manual_seed(seed)
    labels = torch.randint(classes, (count,))
    # pictures that are their own label, one-hot, so that both must mix alike
    pictures = torch.nn.functional.one_hot(labels, classes).float()[:, :, None, None].expand(-1, -1, 2, 2)
    mixed, soft = mixup(pictures, labels, classes, alpha)
    torch.testing.assert_close(soft.sum(1), torch.ones(count))
    assert soft.min() >= 0 and soft.max() <= 1 + 1e-6
    torch.testing.assert_close(mixed[:, :, 1, 1], soft)


def test_mixup_has_the_share_of_the_paper_and_leaves_out_what_is_left_out():
    torch.manual_seed(0)
    shares = torch.tensor([mixup(torch.zeros(2, 1), torch.tensor([0, 1]), 2, 0.2)[1][0, 0] for _ in range(2000)])
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)); half of the orders of two rows change nothing, and give a share of 1
    assert shares.mean() == pytest.approx(0.75, abs=0.03)
    mixed = shares[shares < 1]
    assert mixed.var() == pytest.approx(1 / (4 * 1.4), abs=0.02) and math.isclose(mixed.mean(), 0.5, abs_tol=0.03)
    pictures, soft = mixup(torch.ones(3, 1), torch.tensor([1, LEFT_OUT, 0]), 2)
    assert pictures.shape == (2, 1) and soft.shape == (2, 2)
    labels = torch.full((2,), LEFT_OUT)
    assert mixup(torch.ones(2, 1), labels, 2)[1] is labels
    for labels, alpha, message in [([0, 2], 0.2, "expected labels from 0 to 1"), ([0, 1], 0.0, "expected alpha > 0")]:
        with pytest.raises(ValueError, match=message):
            mixup(torch.ones(2, 1), torch.tensor(labels), 2, alpha)
