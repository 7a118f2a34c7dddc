"""A Gradio app that explains what visitors give it, and the Space folder that runs it on the Hub."""

from .app import build, serve
from .template import write_space


__all__ = ["build", "serve", "write_space"]
