"""The refit at conversion: a B-cos network that works before any training."""

from .layers import LayerFit
from .refit import RefitSettings, refit_


__all__ = ["LayerFit", "RefitSettings", "refit_"]
