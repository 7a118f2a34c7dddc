"""Published checkpoints as our models; name maps are data."""

from .bcos_lm import from_bcos_lm
from .bcosification import from_bcosification
from .openai_clip import from_openai_clip


__all__ = ["from_bcos_lm", "from_bcosification", "from_openai_clip"]
