"""B-cos networks for transformers: pretrained models made inherently interpretable. Importing this registers every Auto class."""

from typing import TYPE_CHECKING

from . import interrupts  # first: what follows takes seconds, in which Ctrl-C must not end in a traceback
from .models import BcosImageExplanationPipeline, BcosTextExplanationPipeline
from .models.bcos_dynamic import explanation_mode
from .models.bcos_explanation import Explanation
from .models.bcos_verifying import Verification, verify


if TYPE_CHECKING:
    from .calibration import bcosify, refit_

__version__ = "0.1.0"
__all__ = [
    "BcosImageExplanationPipeline",
    "BcosTextExplanationPipeline",
    "Explanation",
    "Verification",
    "bcosify",
    "explanation_mode",
    "interrupts",
    "refit_",
    "verify",
]


def __getattr__(name: str):
    """What reads data sets and images is imported when it is asked for."""
    if name in ("bcosify", "refit_"):
        from . import calibration

        return getattr(calibration, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
