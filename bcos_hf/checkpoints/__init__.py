"""Published checkpoints as our models; name maps are data."""

from .openai_clip import from_openai_clip


__all__ = ["from_openai_clip"]
