"""Deletion and the energy pointing game are what quantus makes of the same arrays."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from bcos_hf.metrics import deletion_curve, energy_pointing_shares


@pytest.fixture(scope="module")
def quantus():
    """Its opencv, which these measures do not use, needs system libraries that a bare machine lacks."""
    try:
        import cv2  # noqa: F401
    except ImportError:
        sys.modules["cv2"] = ModuleType("cv2")
    import quantus

    return quantus


def arrays(seed: int):
    """One channel, as quantus ranks each channel's pixels apart; contributions are a permutation, as of equal ones it may take another first."""
    random = torch.Generator().manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(3, 36, generator=random))
    contributions = torch.stack([torch.randperm(36, generator=random) - 17.5 for _ in range(4)]).view(4, 6, 6) / 10
    masks = torch.rand(4, 6, 6, generator=random) < 0.4
    return torch.randn(4, 1, 6, 6, generator=random), contributions, masks, model.eval()


@pytest.mark.parametrize("seed", range(3))
def test_deletion_is_pixel_flipping(quantus, seed):
    images, contributions, _, model = arrays(seed)
    targets = torch.tensor([0, 2, 1, 2])
    curve, _ = deletion_curve(lambda x: model(x).softmax(-1), images, contributions, targets, steps=9)
    flipping = quantus.PixelFlipping(features_in_step=4, normalise=False, perturb_baseline=0.0, disable_warnings=True)
    theirs = flipping(model, images.numpy(), targets.numpy(), a_batch=contributions[:, None].numpy(), softmax=True)
    np.testing.assert_allclose(curve[:, 1:], theirs, rtol=1e-5, atol=1e-6)  # it leaves the whole picture out


@pytest.mark.parametrize("seed", range(3))
def test_energy_pointing_is_relevance_mass_accuracy(quantus, seed):
    images, contributions, masks, model = arrays(seed)
    accuracy = quantus.RelevanceMassAccuracy(normalise=False, disable_warnings=True)
    theirs = accuracy(model, images.numpy(), np.zeros(4, int), a_batch=contributions.clamp_min(0)[:, None].numpy(), s_batch=masks[:, None].numpy())
    np.testing.assert_allclose(energy_pointing_shares(contributions, masks), theirs, rtol=1e-5)
