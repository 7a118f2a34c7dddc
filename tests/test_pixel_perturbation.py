"""Pixel deletion and insertion: the slow loop, both orders against random scores, blur, batches, errors."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bcos_hf.metrics.pixel_perturbation import blurred, deletion_curve, insertion_curve
from bcos_hf.metrics.random_scores import random_scores


quick = settings(max_examples=25, deadline=None, derandomize=True)


def maps(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def model_of(channels, height, width, classes=3):
    weights = maps(classes, channels, height, width, seed=5)
    return lambda images: torch.einsum("nchw,kchw->nk", images, weights).softmax(1)


@quick
@given(
    insert=st.booleans(),
    first=st.booleans(),
    fill=st.sampled_from(["zero", "blur", 0.3, "mean"]),
    steps=st.integers(1, 12),
    batch_size=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_curves_are_the_slow_loop(insert, first, fill, steps, batch_size, seed):
    images, scores, targets = maps(3, 2, 3, 4, seed=seed), maps(3, 3, 4, seed=seed + 1), torch.tensor([2, 0, 1])
    predict = model_of(2, 3, 4)
    mean = images.mean((2, 3), keepdim=True)
    filled = {"zero": torch.zeros_like(images), "blur": blurred(images), 0.3: torch.full_like(images, 0.3), "mean": mean.expand_as(images)}[fill]
    function = insertion_curve if insert else deletion_curve
    before = [x.clone() for x in (images, scores)]
    curve, area = function(predict, images, scores, targets, mean if fill == "mean" else fill, steps=steps, most_important_first=first, batch_size=batch_size)
    assert all(map(torch.equal, before, (images, scores)))
    for n in range(3):
        pixels = sorted(((y, x) for y in range(3) for x in range(4)), key=lambda p: float(scores[n][p]) * (-1 if first else 1))
        slow = []
        for step in range(steps + 1):
            picture, end = (filled[n].clone(), images[n]) if insert else (images[n].clone(), filled[n])
            for y, x in pixels[: 12 * step // steps]:
                picture[:, y, x] = end[:, y, x]
            slow.append(float(predict(picture[None])[0, targets[n]]))
        torch.testing.assert_close(curve[n].tolist(), slow)
        assert float(area[n]) == pytest.approx(sum((a + b) / 2 for a, b in pairwise(slow)) / steps)


def test_true_contributions_beat_random_ones_in_every_order():
    weights, images = maps(1, 8, 8, seed=1), maps(20, 1, 8, 8)
    predict = lambda x: (x * weights).sum((1, 2, 3))[:, None].sigmoid()
    scores, targets = (images * weights)[:, 0], torch.zeros(20, dtype=torch.long)
    chance = random_scores(scores)
    for function, first, sign in ((deletion_curve, True, -1), (deletion_curve, False, 1), (insertion_curve, True, 1), (insertion_curve, False, -1)):
        areas = [function(predict, images, x, targets, "zero", steps=64, most_important_first=first)[1].mean() for x in (scores, chance)]
        assert sign * (areas[0] - areas[1]) > 0.05
    curves = [
        function(predict, images, chance, targets, "zero", steps=64, most_important_first=first)[0]
        for function, first in ((deletion_curve, True), (insertion_curve, False))
    ]
    torch.testing.assert_close(curves[0], curves[1].flip(1))  # inserting the least important first is deleting backwards
    scaled, plain = (deletion_curve(predict, images, factor * scores, targets, steps=8)[0] for factor in (7, 1))
    torch.testing.assert_close(scaled, plain)


def test_blur_is_the_gaussian_mean_of_the_neighbours():
    image = maps(1, 2, 5, 7)
    made = blurred(image, size=3, sigma=0.8)
    for y, x in ((2, 3), (0, 0), (4, 6)):
        total = weight = 0.0
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                factor = np.exp(-(dy**2 + dx**2) / (2 * 0.8**2))
                weight += factor
                total = total + factor * image[0, :, min(max(y + dy, 0), 4), min(max(x + dx, 0), 6)]
        torch.testing.assert_close(made[0, :, y, x], total / weight)
    torch.testing.assert_close(blurred(torch.ones(1, 1, 3, 3)), torch.ones(1, 1, 3, 3))


def test_a_batch_at_a_time_is_predicted():
    sizes = []

    def predict(images):
        sizes.append(len(images))
        return torch.full((len(images), 1), 0.5)

    curve, area = deletion_curve(predict, torch.zeros(7, 1, 2, 2), torch.zeros(7, 2, 2), [0] * 7, steps=2, batch_size=3)
    assert sizes == [3, 3, 3, 3, 3, 3, 1, 1, 1]
    assert (curve == 0.5).all() and (area == 0.5).all()


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"images": torch.zeros(2, 3, 3)}, r"images \[N, C, H, W\]"),
        ({"contributions": torch.zeros(2, 1, 3, 3)}, r"contributions \[N, H, W\]"),
        ({"contributions": torch.full((2, 3, 3), torch.nan)}, "finite"),
        ({"targets": [0]}, "targets"),
        ({"targets": [0, 4]}, "targets"),
        ({"fill": "noise"}, "blur"),
        ({"steps": 10}, "steps <= 9"),
        ({"batch_size": 0}, "batch_size"),
        ({"predict": lambda x: torch.full((len(x), 3), 1.5)}, "sigmoid or softmax"),
        ({"predict": lambda x: torch.zeros(len(x))}, "classes"),
    ],
)
def test_curve_errors(changes, words):
    arguments = dict(
        predict=lambda x: torch.full((len(x), 3), 0.5), images=torch.zeros(2, 1, 3, 3), contributions=torch.zeros(2, 3, 3), targets=[0, 1], steps=3
    )
    with pytest.raises(ValueError, match=words):
        deletion_curve(**{**arguments, **changes})
