"""Grid pictures: sampling (our rule and the published one), composing, and explaining in windows."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bcos_hf.metrics.grids import (
    compose_grids,
    confident_pictures,
    published_grid,
    published_grids,
    published_order,
    sample_grids,
    strided_contributions,
)


quick = settings(max_examples=25, deadline=None, derandomize=True)


def maps(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@quick
@given(side=st.integers(2, 3), transposed=st.booleans(), height=st.integers(1, 3), width=st.integers(1, 3))
def test_composed_grids_have_each_picture_at_its_place(side, transposed, height, width):
    images = maps(12, 2, height, width)
    indices = torch.randint(12, (3, side * side), generator=torch.Generator().manual_seed(0))
    grids = compose_grids(images, indices, transposed)
    assert grids.shape == (3, 2, side * height, side * width)
    for g in range(3):
        for i in range(side * side):
            row, column = (i % side, i // side) if transposed else (i // side, i % side)
            cell = grids[g, :, row * height : (row + 1) * height, column * width : (column + 1) * width]
            assert torch.equal(cell, images[indices[g, i]])
    with pytest.raises(ValueError, match="indices"):
        compose_grids(images, indices[0])


def classified(seed=0, pictures=200, classes=12):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (pictures,), generator=generator)
    predictions = torch.where(torch.rand(pictures, generator=generator) < 0.8, labels, (labels + 1) % classes)
    return 2 * torch.randn(pictures, generator=generator) + 1, labels, predictions


@pytest.mark.parametrize("n_cells, threshold", [(4, 0.5), (9, 0.5), (4, 0.8)])
def test_sampled_pictures_are_confident_correct_distinct_and_used_once(n_cells, threshold):
    confidences, labels, predictions = classified()
    grids = sample_grids(confidences, labels, n_cells, 5, seed=1, threshold=threshold, predictions=predictions)
    assert grids.shape == (5, n_cells)
    assert (confidences[grids].sigmoid() > threshold).all()
    assert torch.equal(predictions[grids], labels[grids])
    assert all(len(set(labels[grid].tolist())) == n_cells for grid in grids)
    assert len(grids.unique()) == grids.numel()
    arguments = dict(threshold=threshold, predictions=predictions)
    assert torch.equal(grids, sample_grids(confidences, labels, n_cells, 5, seed=1, **arguments))
    assert not torch.equal(grids, sample_grids(confidences, labels, n_cells, 5, seed=2, **arguments))
    assert torch.equal(grids[:3], sample_grids(confidences, labels, n_cells, 3, seed=1, **arguments))
    by_class = confident_pictures(confidences, labels, **arguments)
    taken = {label: [i for i in grids.flatten().tolist() if labels[i] == label] for label in by_class}
    assert all(indices == by_class[label][: len(indices)] for label, indices in taken.items())  # the most confident first


def test_published_grids_are_the_slow_rule():
    confidences, labels, predictions = classified(pictures=400)
    left = {c: sorted((i for i in range(400) if labels[i] == c == predictions[i] and confidences[i] > 0), key=lambda i: -confidences[i]) for c in range(12)}
    random, order = np.random.RandomState(42), []
    while sum(map(bool, left.values())) > 9:
        for label in random.choice([c for c in range(12) if left[c]], size=9, replace=False):
            order.append(left[label].pop(0))
    assert order == published_order(confidences, labels, 9, predictions=predictions)
    grids, offset = [], 0
    for _ in range(6):
        grid, seen, i = [], set(), 0
        while len(grid) < 9:
            index = order[offset + i]
            i += 1
            if labels[index].item() not in seen:
                seen.add(labels[index].item())
                grid.append(index)
        grids.append(grid)
        assert published_grid(order, labels, 9, offset) == (grid, offset + i + 1)
        offset += i + 1
    assert published_grids(confidences, labels, 9, 6, predictions=predictions).tolist() == grids
    assert published_grid(order, labels, 9, len(order) - 8) is None


@pytest.mark.parametrize("sample", [sample_grids, published_grids])
def test_sampling_says_what_was_found_and_needed(sample):
    confidences, labels = torch.tensor([3.0, 2.0, 1.0, 4.0, 2.0, -1.0]), torch.tensor([0, 1, 2, 3, 4, 5])
    with pytest.raises(ValueError, match=r"2 grids of 4 distinct classes, found enough for 1: 5 pictures of 5 classes"):
        sample(confidences, labels, 4, 2)
    with pytest.raises(ValueError, match="found enough for 0"):
        sample(confidences, labels, 9, 1)
    with pytest.raises(ValueError, match="got 5"):
        sample(confidences, labels, 5, 1)
    with pytest.raises(ValueError, match=r"\[M\]"):
        sample(confidences, labels[:3], 4, 1)
    assert sample(confidences, labels, 4, 1).shape == (1, 4)
    assert sample_grids(confidences[:4], labels[:4], 4, 1).sort().values.tolist() == [[0, 1, 2, 3]]  # as many classes as cells suffice


@pytest.mark.parametrize("window, stride", [(6, 3), (6, 2), (6, 6), (4, 2)])
def test_strided_contributions_are_summed_over_windows(window, stride):
    grids, margin = maps(2, 3, 12, 12), window - stride
    weights = maps(2, 3, window, window, seed=1)  # two targets; a linear explanation that differs by position in the window
    made = strided_contributions(lambda x: torch.einsum("gchw,tchw->gthw", x, weights), grids, window, stride)
    columns = F.unfold(grids, window, stride=stride, padding=margin).unflatten(1, (1, 3, window, window))
    folded = (columns * weights[None, ..., None]).sum(2).flatten(1, 3)
    torch.testing.assert_close(made, F.fold(folded, (12, 12), window, stride=stride, padding=margin))
    ones = strided_contributions(lambda x: torch.ones(2, 1, window, window), grids, window, stride)
    assert (ones == (window / stride) ** 2).all()
    with pytest.raises(ValueError, match="stride"):
        strided_contributions(lambda x: x, grids, window, 5)
