"""The command line, `bcos-hf`, a file a group of commands. A failure says what was expected and ends with status 1; wrong usage ends with 2."""

import signal
import sys

from transformers.utils import logging

from bcos_hf.interrupts import end_quietly

from . import checkpoints, commands, convert, datasets, demo
from .common import app


__all__ = ["app", "checkpoints", "commands", "convert", "datasets", "demo", "main"]


def main() -> None:
    """Entry point; Ctrl-C ends with 130 and leaves no half file."""
    logging.set_verbosity_error()
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in whose place there was another while this was imported
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        end_quietly()
