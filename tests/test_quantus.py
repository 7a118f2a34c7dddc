"""Deletion and the energy pointing game are what quantus 0.6.0 makes of the same arrays.

Its numbers stand here, as its opencv needs system libraries that a fresh machine may lack. Origin, with `images, contributions, masks, model` of below:
    quantus.PixelFlipping(features_in_step=4, normalise=False, perturb_baseline=0.0)(model, images.numpy(), [0, 2], a_batch=contributions[:, None].numpy())
    quantus.RelevanceMassAccuracy(normalise=False)(model, images.numpy(), [0, 2], contributions.clamp_min(0)[:, None].numpy(), masks[:, None].numpy())
"""

import torch

from bcos_hf.metrics import deletion_curve, energy_pointing_shares


PIXEL_FLIPPING = [
    [0.0388255, 0.1081061, 0.1592287, 0.2368899, 0.3505578, 0.2919692, 0.4192147, 0.2230444, 0.3333333],
    [0.0446848, 0.0408287, 0.2167867, 0.3456588, 0.3660435, 0.2359674, 0.3229641, 0.427935, 0.3333333],
]
MASS_ACCURACY = [0.2799525, 0.3130623]


def arrays():
    """One channel, as quantus ranks each channel's pixels apart; no two contributions are equal."""
    numbers = torch.arange(72, dtype=torch.float32).view(2, 6, 6)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.sin(1.3 * torch.arange(108.0).view(3, 36)))
    masks = torch.zeros(2, 6, 6, dtype=torch.bool)
    masks[0, 1:4, 2:5], masks[1, :2] = True, True
    return torch.sin(numbers)[:, None], torch.cos(2.7 * numbers), masks, model.eval()


def test_deletion_is_pixel_flipping():
    images, contributions, _, model = arrays()
    curve, _ = deletion_curve(lambda x: model(x).softmax(-1), images, contributions, torch.tensor([0, 2]), steps=9)
    torch.testing.assert_close(curve[:, 1:], torch.tensor(PIXEL_FLIPPING), rtol=1e-5, atol=1e-6)  # quantus leaves the whole picture out


def test_energy_pointing_is_relevance_mass_accuracy():
    _, contributions, masks, _ = arrays()
    torch.testing.assert_close(energy_pointing_shares(contributions, masks), torch.tensor(MASS_ACCURACY), rtol=1e-5, atol=1e-6)
