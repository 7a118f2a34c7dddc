"""The grid pointing game as it is played: the model's own confident pictures, every explainer on the same grids."""

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import ImageClassifierOutput

from bcos_hf import Explanation
from bcos_hf.metrics import play_grid_pointing_game


class Bright(nn.Module):
    """Class c is brightness c / 3 in the first channel; sure of itself but for class 3."""

    device = torch.device("cpu")

    def forward(self, pixel_values):
        level = pixel_values[:, 0].mean((1, 2), keepdim=False)[:, None]
        logits = 4 - 40 * (level - torch.arange(5) / 4).abs()
        return ImageClassifierOutput(logits=logits)


def explain_perfectly(pixel_values, targets):
    level = (pixel_values[:, 0] * 4).round()
    contributions = torch.stack([(level[0] == target).float() for target in targets[0]])[None]
    return Explanation(torch.zeros(1, 5), targets, contributions, torch.zeros(1, len(targets[0])), torch.zeros(1, len(targets[0])))


def explain_evenly(pixel_values, targets):
    made = explain_perfectly(pixel_values, targets)
    made.contributions = torch.ones_like(made.contributions)
    return made


def test_perfect_is_1_and_even_is_chance():
    labels = torch.arange(5).repeat(8)
    pictures = (labels / 4)[:, None, None, None].expand(-1, 3, 6, 6)
    game = play_grid_pointing_game(Bright(), {"perfect": explain_perfectly, "even": explain_evenly}, pictures, labels, count=6, smooth=0)
    assert game["perfect"]["mean"] == 1 and game["perfect"]["max_relative_residual"] == 0
    assert game["even"]["mean"] == pytest.approx(0.25) and game["even"]["low"] <= 0.25 <= game["even"]["high"]


def test_wrong_pictures_do_not_play():
    labels = torch.arange(5).repeat(2)
    pictures = (labels / 4)[:, None, None, None].expand(-1, 3, 6, 6)
    with pytest.raises(ValueError, match="classes"):
        play_grid_pointing_game(Bright(), {"perfect": explain_perfectly}, pictures, labels.flip(0), count=2)
