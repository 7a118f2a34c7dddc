"""The refit at conversion: a B-cos network that works before any training."""

from .choosing import choose_b
from .conversion import bcosify
from .inputs import calibration_batches
from .refit import refit_
from .report import LayerFit
from .sampling import RefitSettings


__all__ = ["LayerFit", "RefitSettings", "bcosify", "calibration_batches", "choose_b", "refit_"]
