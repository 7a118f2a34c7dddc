"""Pictures of explanations: the colour formula written slowly, its laws, figures and pages."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bcos_hf.visualization.figures import AGAINST, FOR
from bcos_hf.visualization.image import gradient_to_image, on_white, overlay, peak, percentile, picture_grid, signed_map, smoothed, to_picture


quick = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
sides, smooths, seeds = st.integers(1, 9), st.integers(0, 6), st.integers(0, 2**31)


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_mean(values, smooth):
    """Every pixel's square, zeros outside counted."""
    (height, width), made = values.shape, torch.zeros_like(values)
    for y in range(height):
        for x in range(width):
            for dy in range(-((smooth - 1) // 2), smooth // 2 + 1):
                for dx in range(-((smooth - 1) // 2), smooth // 2 + 1):
                    if 0 <= y + dy < height and 0 <= x + dx < width:
                        made[y, x] += values[y + dy, x + dx] / smooth**2
    return made


def slow_colours(weights, contributions, smooth, percent):
    """The published formula, pixel by pixel, with a strength of 0 where it has 1e-12 for pixels that speak against, and 0 for 0 / 0."""
    height, width, half = *weights.shape[1:], weights.shape[0] // 2
    made, strength = torch.zeros(height, width, 4, dtype=weights.dtype), torch.zeros(height, width, dtype=weights.dtype)
    for y in range(height):
        for x in range(width):
            pixel = weights[:, y, x]
            positive = (pixel / (max(abs(w) for w in pixel) + 1e-12)).clamp(min=0)
            for c in range(3):
                first, last = positive[c % half], positive[c % half + half]
                made[y, x, c] = first / (first + last + 1e-12)
            strength[y, x] = 0.0 if contributions[y, x] < 0 else sum(w**2 for w in pixel) ** 0.5
    strength = slow_mean(strength, smooth) if smooth > 1 else strength
    made[..., 3] = (strength / torch.quantile(strength, percent / 100)).nan_to_num(0).clamp(0, 1)
    return made


@quick
@given(seeds, sides, sides, smooths, st.sampled_from([2, 6]), st.floats(0, 100))
def test_colours_are_the_published_formula(seed, height, width, smooth, channels, percent):
    weights, contributions = drawn(seed, channels, height, width), drawn(seed + 1, height, width).abs()
    contributions[0, : width // 3] *= -1
    contributions[-1, -1] = 0  # speaks neither for nor against, and is shown
    ours = gradient_to_image(weights, contributions, smooth, percent)
    torch.testing.assert_close(ours, slow_colours(weights, contributions, smooth, percent), rtol=0, atol=1e-9)


@quick
@given(seeds, sides, sides, smooths, st.floats(1e-30, 1e30))
def test_laws_of_colours(seed, height, width, smooth, scale):
    weights, contributions = drawn(seed, 2, 6, height, width), drawn(seed + 1, 2, height, width)
    colours = gradient_to_image(weights, contributions, smooth)
    assert colours.shape == (2, height, width, 4) and colours.min() >= 0 and colours.max() <= 1
    torch.testing.assert_close(gradient_to_image(weights * scale, contributions * scale, smooth), colours, rtol=0, atol=1e-9)
    torch.testing.assert_close(gradient_to_image(weights[1], contributions[1], smooth), colours[1], rtol=0, atol=0)
    plain = gradient_to_image(weights, contributions, None)
    assert (plain[..., 3][contributions < 0] == 0).all()
    assert (plain[..., 3][contributions >= 0] > 0).all()


def test_a_red_pixel_stays_red():
    """The weights of a pixel that look for [1, 0, 0] and its inverse [0, 1, 1]."""
    weights = torch.tensor([1.0, 0, 0, 0, 1, 1])[:, None, None]
    assert gradient_to_image(weights, torch.ones(1, 1)).flatten().tolist() == pytest.approx([1, 0, 0, 1])
    assert on_white(gradient_to_image(weights, torch.ones(1, 1), 0)).flatten().tolist() == pytest.approx([1, 0, 0])


@pytest.mark.parametrize("size", [(1, 1), (5, 4)])
def test_nothing_is_transparent_not_nan(size):
    zeros, against = torch.zeros(size), -torch.ones(size)
    assert torch.equal(gradient_to_image(torch.zeros(6, *size), zeros), torch.zeros(*size, 4))
    assert not gradient_to_image(torch.ones(6, *size), against)[..., 3].any()
    assert not signed_map(zeros)[..., 3].any() and signed_map(zeros).isfinite().all()
    assert torch.equal(to_picture(torch.full((3, *size), 7.0)), torch.zeros(*size, 3))


def test_one_pixel_that_speaks_for_is_seen_among_many_against():
    contributions = -torch.ones(30, 30)
    contributions[3, 4] = 1
    alpha = gradient_to_image(torch.ones(6, 30, 30), contributions, None)[..., 3]
    assert alpha[3, 4] == 1 and alpha.sum() == 1


def test_half_precision_is_widened_and_history_left_behind():
    weights = torch.full((6, 2, 2), 1e-7, dtype=torch.float16, requires_grad=True)
    colours = gradient_to_image(weights, torch.ones(2, 2, dtype=torch.float16))
    assert colours.dtype == torch.float32 and not colours.requires_grad and colours[..., 3].max() == 1


@quick
@given(seeds, sides, sides, st.floats(0, 100))
def test_percentile_is_the_quantile(seed, height, width, percent):
    values = drawn(seed, 2, height, width)
    torch.testing.assert_close(percentile(values, percent).flatten(), torch.quantile(values.flatten(1), percent / 100, dim=1), rtol=0, atol=1e-12)


def test_pictures_larger_than_torch_quantile_takes():
    large = torch.arange(4097.0 * 4097).view(4097, 4097)  # over 2**24 numbers; float32 holds ranks to 2 there
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(large, 0.5)
    assert percentile(large, 50).item() == pytest.approx((4097**2 - 1) / 2, abs=2)


@quick
@given(seeds, sides, sides, smooths)
def test_signed_maps_are_the_formula(seed, height, width, smooth):
    values = drawn(seed, height, width)
    means = slow_mean(values, smooth) if smooth > 1 else values
    torch.testing.assert_close(smoothed(values, smooth), means, rtol=0, atol=1e-12)
    limit = torch.quantile(means.abs(), 0.995)
    assert peak(means).item() == pytest.approx(limit.item())
    ours, rgb = signed_map(values, smooth), {sign: [int(c[at : at + 2], 16) / 255 for at in (1, 3, 5)] for sign, c in ((True, FOR), (False, AGAINST))}
    for y in range(height):
        for x in range(width):
            assert ours[y, x].tolist() == pytest.approx([*rgb[bool(means[y, x] > 0)], min(abs(means[y, x] / limit).item(), 1)])


@quick
@given(seeds, sides, sides, st.floats(0, 1))
def test_overlays_and_pictures_are_the_formula(seed, height, width, strength):
    picture, colours = drawn(seed, height, width, 3).sigmoid(), drawn(seed + 1, height, width, 4).sigmoid()
    alpha = strength * colours[..., 3:]
    torch.testing.assert_close(overlay(picture, colours, strength), (1 - alpha) * picture + alpha * colours[..., :3], rtol=0, atol=1e-12)
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
    normalised = (picture - torch.tensor(mean).double()) / torch.tensor(std).double()
    torch.testing.assert_close(to_picture(normalised.movedim(-1, 0), mean, std), picture, rtol=0, atol=1e-7)
    stretched = to_picture(normalised.movedim(-1, 0))
    torch.testing.assert_close(stretched, (normalised - normalised.min()) / (normalised.max() - normalised.min()), rtol=0, atol=1e-12)
    grey = to_picture(picture[..., 0][None], 0, 1)
    assert all(torch.equal(grey[..., c], picture[..., 0]) for c in range(3))


def test_grids_are_in_reading_order_on_white():
    made = picture_grid([torch.full((2, size, 3), 0.1 * size) for size in (1, 2, 3)], columns=2, gap=1)
    assert made.shape == (5, 7, 3)
    assert made[0, :, 0].tolist() == pytest.approx([0.1, 1, 1, 1, 0.2, 0.2, 1])
    assert made[3, :, 0].tolist() == pytest.approx([0.3, 0.3, 0.3, 1, 1, 1, 1])
    assert picture_grid([torch.zeros(2, 2, 3)], columns=4, gap=0).shape == (2, 2, 3)


@pytest.mark.parametrize(
    "words, call",
    [
        ("without the inverse channels", lambda: gradient_to_image(torch.zeros(3, 4, 4), torch.zeros(4, 4))),
        (r"contributions: expected \[4, 4\]", lambda: gradient_to_image(torch.zeros(6, 4, 4), torch.zeros(4, 5))),
        ("smooth: expected a whole number", lambda: smoothed(torch.zeros(4, 4), -1)),
        ("percentile: expected 0 to 100", lambda: signed_map(torch.zeros(4, 4), percentile=101)),
        (r"pixel_values: expected \[..., 3, H, W\]", lambda: to_picture(torch.zeros(4, 8, 8))),
        ("mean: expected a number or 3", lambda: to_picture(torch.zeros(3, 8, 8), mean=[0.5, 0.5])),
        ("picture_grid: expected columns >= 1", lambda: picture_grid([], 2)),
    ],
)
def test_errors_say_what_was_expected(words, call):
    with pytest.raises(ValueError, match=words):
        call()
