"""Agreement of predictions, lattices in maps, and images beside their explanations."""


import pytest
import torch
from PIL import Image

from bcos_hf.metrics import compare_predictions, lattice_strength
from bcos_hf.visualization import plot_comparison


def width_of(path) -> int:
    with Image.open(path) as image:
        return image.width


def test_agreement_of_a_model_with_itself():
    logits = torch.randn(20, 7)
    made = compare_predictions(logits, logits)
    assert made["top_1"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert made["top_5"] == 1.0
    assert made["kl"] == pytest.approx(0, abs=1e-6)
    assert made["probability"] == pytest.approx(made["standard_probability"])


def test_agreement_counts_the_largest_logits():
    standard = torch.eye(6)
    logits = torch.eye(6)[[0, 1, 2, 4, 3, 5]]
    assert compare_predictions(standard, logits)["top_1"]["mean"] == pytest.approx(4 / 6)
    with pytest.raises(ValueError, match=r"\[6, 6\] and \[6, 5\]"):
        compare_predictions(standard, logits[:, :5])


def test_a_lattice_is_seen_at_its_period():
    maps = torch.rand(40, 64, 64, dtype=torch.float64)
    lattice = torch.zeros(64, 64, dtype=torch.float64)
    lattice[::8, ::8] = 3.0
    assert lattice_strength(maps, 8) < 0.1 < 0.5 < lattice_strength(maps + lattice, 8)
    assert lattice_strength(maps + lattice, 4) < lattice_strength(maps + lattice, 8)
    assert lattice_strength(5.0 * (maps + lattice), 8) == pytest.approx(lattice_strength(maps + lattice, 8))
    assert lattice_strength(torch.zeros(2, 8, 8), 4) == 0


def test_the_lattice_of_one_phase_alone():
    maps = torch.zeros(3, 16, 16)
    maps[:, 1::4, 2::4] = -1.0
    assert lattice_strength(maps, 4) == pytest.approx(15**0.5)  # one phase of 16 has all: deviation over mean


@pytest.mark.parametrize("shape", [(8, 8), (1, 4, 8)])
def test_a_lattice_needs_whole_cells(shape):
    with pytest.raises(ValueError, match="expected contributions"):
        lattice_strength(torch.zeros(shape), 8)


def test_a_comparison_is_drawn(tmp_path):
    rows = {"photo": [torch.rand(8, 8, 3)] * 2, "map": [torch.rand(8, 8, 3)] * 2}
    plot_comparison(rows, ["cock $1$", "a class with a name that is far too long"], tmp_path / "made.png")
    assert width_of(tmp_path / "made.png") > 100
    with pytest.raises(ValueError, match="rows of one length"):
        plot_comparison({**rows, "other": []})
    with pytest.raises(ValueError, match="rows of one length"):
        plot_comparison({})
