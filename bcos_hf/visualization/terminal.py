"""What names, texts and messages say reaches a terminal harmless: in a process that talks to one, both standard streams show control characters as signs."""

import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .reading import visible


KEPT = re.compile(r"[\n\t]")
# a write of a progress bar: to the start of its line, or some lines down or up
BAR = re.compile(r"\r|\n*(\x1b\[A)*\Z")


def harmless(text: str) -> str:
    """`text` whose lines and tabs stay, and whose other control characters are signs one can see."""
    start = BAR.match(text)
    kept = start[0] if start else ""
    return kept + "".join(
        piece if KEPT.fullmatch(piece) else visible(piece)
        for piece in re.split(r"([\n\t])", text[len(kept) :].replace("\r\n", "\n"))
    )


class HarmlessStream:
    """A text stream that writes what is `harmless`, and is the stream it was made of otherwise."""

    def __init__(self, stream) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text`, harmless, and return its length."""
        self._stream.write(harmless(text))
        return len(text)

    def writelines(self, lines) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    def __iter__(self):
        return iter(self._stream)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def _log_handlers() -> Iterator[logging.StreamHandler]:
    """Those that write to a stream, which they took when they were made."""
    loggers = [
        logging.root,
        *(logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)),
    ]
    return (handler for logger in loggers for handler in logger.handlers if type(handler) is logging.StreamHandler)


@contextmanager
def harmless_streams() -> Iterator[None]:
    """A context, or decorator, in which standard output and error, and logs to them, are `HarmlessStream`s."""
    before = sys.stdout, sys.stderr
    after = [
        stream if isinstance(stream, HarmlessStream) or stream is None else HarmlessStream(stream) for stream in before
    ]
    changed = []
    for handler in _log_handlers():
        for stream, new in zip(before, after, strict=True):
            if handler.stream is stream and stream is not new:
                changed.append((handler, handler.setStream(new)))
    sys.stdout, sys.stderr = after
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for handler, stream in changed:
            handler.setStream(stream)


def harmless_main(main: Callable[[], object]) -> None:
    """Run what a script does with `harmless_streams`, which its traceback goes through too; a failure ends with status 1."""
    with harmless_streams():
        try:
            main()
        except Exception:  # as the interpreter would, whose own printing comes after the context
            traceback.print_exc()
            sys.exit(1)
