"""The bias of a norm behind a sum, written by the layer in front of it: what comes to the norm is to be such that the
norm gives, without its bias, what it gave.

With z the standardized sum r of the standard model, d its deviation, and g the gain that the norm shall have, wanted is
r + d ((g0 z + beta) / g - z).
"""

import torch
from torch import Tensor


LEAST_GAIN = 0.3  # in parts of the standard norm's


def gain_for(z: Tensor, normed: Tensor, standard_gain: Tensor) -> Tensor:
    """The gain without which a bias is met best, z gain ~ `normed`; [..., 1, C] of rows [..., M, C], not far below the
    standard norm's [..., 1, C]."""
    gain = least_squares_gain(z, normed)
    least = LEAST_GAIN * standard_gain.abs()
    sign = torch.where(gain == 0, standard_gain, gain).sign()
    gain = torch.where(gain.abs() < least, least * sign, gain)
    return torch.where(gain == 0, 1.0, gain)


def least_squares_gain(z: Tensor, normed: Tensor) -> Tensor:
    """A number a channel, [..., 1, C], that brings z nearest to `normed`, both [..., M, C]."""
    return (z * normed).mean(-2, keepdim=True) / z.square().mean(-2, keepdim=True).clamp_min(1e-12)


def wanted_sum(total: Tensor, z: Tensor, deviation: Tensor, normed: Tensor, gain: Tensor) -> Tensor:
    """What is to come to the norm, so that with `gain` and without a bias it gives `normed`."""
    return total + deviation * (normed / gain - z)


def standardized_rows(total: Tensor) -> Tensor:
    """(x - mean) / deviation of each row [..., C], as a layer norm takes them."""
    deviation = total.var(-1, unbiased=False, keepdim=True).clamp_min(1e-12).sqrt()
    return (total - total.mean(-1, keepdim=True)) / deviation
