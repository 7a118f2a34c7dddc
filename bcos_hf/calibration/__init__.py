"""The refit at conversion: a B-cos network that works before any training."""

from .conversion import bcosify
from .choosing import choose_b
from .inputs import calibration_batches
from .layers import LayerFit
from .refit import RefitSettings, refit_


__all__ = ["LayerFit", "RefitSettings", "bcosify", "calibration_batches", "choose_b", "refit_"]
