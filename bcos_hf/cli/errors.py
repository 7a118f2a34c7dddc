"""Failures in words: whatever a person's files, options or machine make happen ends in one or two lines, never in a traceback."""

import sys

import typer
from typer.core import TyperGroup

from bcos_hf.visualization.reading import visible
from bcos_hf.visualization.terminal import harmless_streams


UsageError = typer.BadParameter.__base__  # click's, or that of the copy of click which typer has
# whose messages are sentences; what others say is not understood without their names
SENTENCES = (ValueError, OSError, RuntimeError, TypeError, ImportError)
LONGEST = 2000  # characters
SAID = {
    MemoryError: "there is not enough memory. Choose a smaller model, batch or image",
    RecursionError: "something is nested too deeply",
    NotImplementedError: "this is not supported",
    EOFError: "a file ends too early",
}


def message_of(error: BaseException) -> str:
    """An error in one or two harmless lines that say what is wrong, and of which kind it is where its words do not."""
    lines = [visible(line.strip()) for line in str(error).splitlines() if line.strip()]
    if any(line.startswith("Traceback") for line in lines):  # of another process: its last line is what happened
        lines = [lines[0], lines[-1]]
    said = "\n".join(lines[:2])
    said = said if len(said) <= LONGEST else f"{said[: LONGEST - 1]}…"
    name = type(error).__name__
    known = next((words for kind, words in SAID.items() if isinstance(error, kind)), None)
    if known is not None:
        return f"{known} ({said or name})."
    is_sentence = isinstance(error, SENTENCES) and not isinstance(error, UnicodeError) and len(said.split()) > 1
    return said if is_sentence else f"{name}: {said or 'without a message'}"


class Commands(TyperGroup):
    """The commands, whose wrong usage is said in one or two lines, without a page of usage, and ends with status 2."""

    def main(self, *args, standalone_mode: bool = True, **kwargs):
        """As click's, but for what is said on an error, and harmless all; Ctrl-C ends with status 130 and says nothing."""
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **kwargs)
        with harmless_streams():
            self._run(*args, **kwargs)

    def _run(self, *args, **kwargs):
        """Run a command and end with its status."""
        try:
            done = super().main(*args, standalone_mode=False, **kwargs)
        except UsageError as error:
            typer.echo(f"bcos-hf: {_usage(error)}", err=True)
            sys.exit(error.exit_code)
        except (KeyboardInterrupt, typer.Abort):
            sys.exit(130)
        except Exception as error:
            typer.echo(f"bcos-hf: {message_of(error)}", err=True)
            sys.exit(1)
        sys.exit(done if isinstance(done, int) else 0)


def _usage(error) -> str:
    """What is wrong with a command line, and what there is."""
    said = visible(error.format_message().strip().replace("\n", " ")).rstrip(".")
    context = error.ctx
    if context is None:
        return f"{said}."
    command = context.command
    if hasattr(command, "commands"):
        return f"{said}. There are the commands {', '.join(command.commands)}; bcos-hf COMMAND --help says more."
    options = [parameter.opts[0] for parameter in command.params if parameter.param_type_name == "option"]
    arguments = [parameter.name.upper() for parameter in command.params if parameter.param_type_name == "argument"]
    return (
        f"{said}. bcos-hf {command.name} takes {' '.join(arguments)} and the options {', '.join([*options, '--help'])}."
    )
