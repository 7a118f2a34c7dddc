"""Ctrl-C in the command line ends with status 130 and says nothing, while it still imports, too.

Imports take seconds before `bcos_hf.cli.main` can catch anything, and an interrupted one would end in a traceback.
"""

import os
import signal
import sys
import threading
from pathlib import Path


def is_command() -> bool:
    """Whether this process runs `bcos-hf`, or `python -m bcos_hf.cli`."""
    module = [(flag, name) for flag, name in zip(sys.orig_argv, sys.orig_argv[1:], strict=False) if flag == "-m"]
    return Path(sys.argv[0] if sys.argv else "").stem == "bcos-hf" or module[:1] == [("-m", "bcos_hf.cli")]


def end_quietly() -> None:
    """From now on Ctrl-C ends the process at once."""
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))


if (
    is_command()
    and threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    end_quietly()
