"""Pointing games and bootstrap: slow loops beside the fast code, chance level, perfect maps, invariances, errors, evaluate.load."""

from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bcos_hf
from bcos_hf.metrics.bootstrap import CHUNK, bootstrap_interval, measured
from bcos_hf.metrics.energy_pointing_game import box_masks, energy_pointing_shares
from bcos_hf.metrics.grid_pointing_game import grid_pointing_shares
from bcos_hf.metrics.grids import compose_grids
from bcos_hf.metrics.pixel_perturbation import curve_area
from bcos_hf.metrics.random_scores import random_scores


METRICS = Path(bcos_hf.__file__).parent / "metrics"
quick = settings(max_examples=25, deadline=None, derandomize=True)


def maps(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def metric(name, **inputs):
    return evaluate.load(str(METRICS / f"{name}.py")).compute(**inputs)


def test_bootstrap_is_the_quantiles_of_resampled_means():
    values = [0.1, 0.5, 0.2, 0.9, 0.4]
    generator = np.random.default_rng(3)
    means = [np.mean([values[i] for i in generator.integers(5, size=5)]) for _ in range(400)]
    made = bootstrap_interval(values, confidence=0.9, n_resamples=400, seed=3)
    assert made == pytest.approx({"mean": np.mean(values), "low": np.quantile(means, 0.05), "high": np.quantile(means, 0.95)})
    assert measured("x", torch.tensor(values), seed=1).keys() == {"x", "x_low", "x_high", "n", "seed"}
    assert measured("x", torch.tensor(values), torch.tensor([0.5, 0.75]), seed=1)["x_random"] == 0.625


def test_bootstrap_agrees_with_the_normal_interval_and_is_seeded():
    values = maps(400)
    made, error = bootstrap_interval(values, seed=1), float(values.std()) / 20
    assert (made["high"] - made["low"]) / (2 * 1.96 * error) == pytest.approx(1, abs=0.05)
    assert made == bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    assert bootstrap_interval([0.25]) == {"mean": 0.25, "low": 0.25, "high": 0.25}


def test_bootstrap_does_not_depend_on_its_chunks(monkeypatch):
    whole = bootstrap_interval(maps(7), n_resamples=100)
    assert CHUNK > 700
    monkeypatch.setattr("bcos_hf.metrics.bootstrap.CHUNK", 21)
    assert bootstrap_interval(maps(7), n_resamples=100) == whole


@pytest.mark.parametrize(
    "values, options, words", [([], {}, "at least 1"), ([[1.0]], {}, "shape"), ([1.0, np.nan], {}, "1 of 2"), ([1.0], {"confidence": 95}, "95")]
)
def test_bootstrap_errors(values, options, words):
    with pytest.raises(ValueError, match=words):
        bootstrap_interval(values, **options)


def slow_share(picture, cell, side, smooth, negative, transposed):
    """One map, pixel by pixel."""
    height, width = picture.shape
    inside = total = 0.0
    for y in range(height):
        for x in range(width):
            value = float(picture[y, x])
            if smooth:
                before, after = (smooth - 1) // 2, smooth // 2
                window = picture[max(0, y - before) : y + after + 1, max(0, x - before) : x + after + 1]
                value = float(window.sum()) / smooth**2
            value = max(0.0, -value if negative else value)
            row, column = y * side // height, x * side // width
            total += value
            inside += value * ((column * side + row if transposed else row * side + column) == cell)
    share = inside / total if total > 0 else 0.0
    return 1 - share if negative else share


@quick
@given(
    side=st.integers(2, 3),
    cell=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    smooth=st.integers(0, 8),
    negative=st.booleans(),
    transposed=st.booleans(),
    channels=st.sampled_from([0, 1, 3]),
    seed=st.integers(0, 99),
)
def test_grid_pointing_is_the_slow_loop(side, cell, smooth, negative, transposed, channels, seed):
    shape = (2, side * side, *([channels] if channels else []), side * cell[0], side * cell[1])
    given_maps = maps(*shape, seed=seed)
    summed = given_maps.sum(2) if channels else given_maps
    slow = [[slow_share(summed[g, t], t, side, smooth, negative, transposed) for t in range(side * side)] for g in range(2)]
    torch.testing.assert_close(grid_pointing_shares(given_maps, smooth, negative, transposed), torch.tensor(slow, dtype=torch.float64))


@pytest.mark.parametrize("side", [2, 3])
def test_grid_pointing_of_perfect_wrong_random_and_empty_maps(side):
    cells = torch.arange(side * side)
    perfect = compose_grids(torch.eye(side * side).unflatten(1, (1, 1, -1)).mT.reshape(-1, side * side, 1, 1).expand(-1, -1, 5, 5), cells[None])
    assert torch.equal(grid_pointing_shares(perfect), torch.ones(1, side * side))
    assert torch.equal(grid_pointing_shares(perfect.roll(1, 1)), torch.zeros(1, side * side))
    assert torch.equal(grid_pointing_shares(-perfect), torch.zeros(1, side * side))
    assert torch.equal(grid_pointing_shares(-perfect.roll(1, 1), negative=True), torch.ones(1, side * side))
    shares = grid_pointing_shares(random_scores(torch.empty(60, side * side, 5 * side, 5 * side)), smooth=3)
    assert abs(shares.mean() - 1 / side**2) < 5 * shares.std() / shares.numel() ** 0.5
    assert shares.std() > 0


@quick
@given(scale=st.floats(1e-6, 1e6), smooth=st.integers(0, 4), negative=st.booleans())
def test_positive_rescaling_changes_no_share(scale, smooth, negative):
    given_maps = maps(2, 4, 6, 6)
    torch.testing.assert_close(grid_pointing_shares(scale * given_maps, smooth, negative), grid_pointing_shares(given_maps, smooth, negative))
    boxes = torch.tensor([[0, 1, 3, 5], [2, 2, 6, 3]])
    torch.testing.assert_close(energy_pointing_shares(scale * given_maps[:, 0], boxes), energy_pointing_shares(given_maps[:, 0], boxes))


def test_shares_are_of_float32_at_least():
    given_maps = maps(1, 4, 64, 64).abs().half()
    torch.testing.assert_close(grid_pointing_shares(given_maps), grid_pointing_shares(given_maps.float()))


@pytest.mark.parametrize(
    "shape, options, words",
    [
        ((4, 6, 6), {}, r"\[G, T, H, W\]"),
        ((1, 5, 6, 6), {}, "got 5"),
        ((2, 1, 6, 6), {}, "got 1"),
        ((1, 4, 6, 7), {}, "6 x 7"),
        ((1, 4, 6, 6), {"smooth": -1}, "smooth"),
    ],
)
def test_grid_pointing_errors(shape, options, words):
    with pytest.raises(ValueError, match=words):
        grid_pointing_shares(maps(*shape), **options)


@quick
@given(data=st.data(), height=st.integers(1, 6), width=st.integers(1, 6), seed=st.integers(0, 99))
def test_energy_pointing_is_the_slow_loop(data, height, width, seed):
    given_maps = maps(2, height, width, seed=seed)
    boxes = []
    for _ in range(2):
        x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
        boxes.append([x0, y0, data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))])
    slow = []
    for values, (x0, y0, x1, y1) in zip(given_maps.tolist(), boxes, strict=True):
        positive = {(x, y): max(values[y][x], 0.0) for y in range(height) for x in range(width)}
        inside = sum(value for (x, y), value in positive.items() if x0 <= x < x1 and y0 <= y < y1)
        slow.append(inside / sum(positive.values()) if sum(positive.values()) > 0 else 0.0)
    boxes = torch.tensor(boxes)
    torch.testing.assert_close(energy_pointing_shares(given_maps, boxes), torch.tensor(slow, dtype=torch.float64))
    torch.testing.assert_close(energy_pointing_shares(given_maps, box_masks(boxes, height, width)), torch.tensor(slow, dtype=torch.float64))


def test_energy_pointing_of_perfect_and_random_maps():
    boxes = torch.tensor([[1, 2, 4, 8]]).expand(400, 4)
    inside = box_masks(boxes, 10, 12)
    assert (energy_pointing_shares(inside.float() - 0.5, boxes) == 1).all()
    assert (energy_pointing_shares(0.5 - inside.float(), inside.float()) == 0).all()
    assert (energy_pointing_shares(-inside.float(), boxes) == 0).all()
    shares = energy_pointing_shares(random_scores(inside), boxes)
    assert abs(shares.mean() - 18 / 120) < 5 * shares.std() / 20


@pytest.mark.parametrize(
    "shape, regions, words",
    [
        ((1, 1, 4, 4), [[0, 0, 2, 2]], "one map a picture"),
        ((1, 4, 4), [[0, 0, 2]], "x0, y0, x1, y1"),
        ((1, 4, 4), [[2, 0, 2, 2]], r"\[2, 0, 2, 2\]"),
        ((1, 4, 4), [[0, 0, 2, 5]], "<= 4"),
        ((2, 4, 4), [[0, 0, 2, 2]], "for contributions"),
        ((1, 2, 2), [[[0.5, 1], [0, 0]]], "0 and 1"),
        ((1, 2, 2), [[[0, 0], [0, 0]]], "at least one"),
    ],
)
def test_energy_pointing_errors(shape, regions, words):
    with pytest.raises(ValueError, match=words):
        energy_pointing_shares(maps(*shape), torch.tensor(regions))


def test_metrics_load_by_path():
    given_maps = maps(6, 4, 4, 4).float()
    made = metric("grid_pointing_game", predictions=given_maps, smooth=3, transposed=True, seed=2)
    chance = grid_pointing_shares(random_scores(given_maps, 2), 3, transposed=True).mean(1)
    assert made == pytest.approx(measured("grid_pointing_game", grid_pointing_shares(given_maps, 3, transposed=True).mean(1), chance, 2))
    assert 0.1 < made["grid_pointing_game_random"] < 0.4 and (made["n"], made["seed"]) == (6, 2)
    boxes = torch.tensor([[0, 1, 3, 4]]).expand(6, 4)
    chance = energy_pointing_shares(random_scores(given_maps[:, 0]), boxes)
    wanted = pytest.approx(measured("energy_pointing_game", energy_pointing_shares(given_maps[:, 0], boxes), chance))
    assert metric("energy_pointing_game", predictions=given_maps[:, 0], references=boxes) == wanted
    assert metric("energy_pointing_game", predictions=given_maps[:, 0].tolist(), references=box_masks(boxes, 4, 4).float().tolist()) == wanted
    curves = torch.rand(6, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for name in ("pixel_deletion", "pixel_insertion"):
        assert metric(name, predictions=curves) == pytest.approx(measured(name, curve_area(curves)))
        assert metric(name, predictions=curves, random=curves.flip(0) / 2)[f"{name}_random"] == pytest.approx(curve_area(curves).mean().item() / 2)
        with pytest.raises(ValueError, match="two points"):
            metric(name, predictions=[[0.5]])
