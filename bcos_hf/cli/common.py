"""What the commands share: the app, errors as one line, results as text or as JSON, models and processors loaded."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer
from transformers.utils import cached_file

from bcos_hf.models import load_saved as load
from bcos_hf.models.bcos_class_names import class_names, distinct_names, written_class
from bcos_hf.models.bcos_processors import FILES, saved_processor
from bcos_hf.models.bcos_writing import is_free
from bcos_hf.visualization.reading import visible

from .errors import Commands, UsageError, message_of


__all__ = [
    "AS_JSON",
    "app",
    "check_new",
    "hub_id",
    "load",
    "of_images",
    "processor_of",
    "processors",
    "saved_processors",
    "say",
    "told",
    "written_target",
]

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain, as no escape sequence is written
    pretty_exceptions_enable=False,
    help="Pretrained networks, made inherently interpretable.",
)
AS_JSON = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@contextmanager
def told() -> Iterator[None]:
    """Errors as one or two lines on standard error and status 1."""
    try:
        yield
    except (typer.Exit, UsageError):
        raise
    except Exception as error:  # libraries raise of all kinds for what a person's files and options hold
        typer.echo(f"bcos-hf: {message_of(error)}", err=True)
        raise typer.Exit(1) from error


def say(result: dict, as_json: bool, *lines: str) -> None:
    """Print `result` as one JSON object, or `lines`, in each of which a name that has line breaks stays on its line."""
    typer.echo(json.dumps(result).replace("\x7f", "\\u007f") if as_json else "\n".join(map(visible, lines)))


def processors(source: str) -> list:
    """The tokenizer and the image processor of a model, those that there are.

    Raises:
        ValueError: one of which there are files that cannot be loaded.
    """
    kinds = (AutoTokenizer, AutoImageProcessor)
    return [saved_processor(auto, source) for auto in kinds if any(_has(source, name) for name in FILES[auto])]


def saved_processors(source: str) -> list:
    """As `processors`; those that were saved as one, as of a CLIP, stay one."""
    whole = _has(source, "processor_config.json")
    return [saved_processor(AutoProcessor, source)] if whole else processors(source)


def _has(source: str, name: str) -> bool:
    """Whether a folder or Hub id has a file."""
    quiet = dict.fromkeys(("missing_entries", "gated_repo", "connection_errors"), False)
    found = cached_file(source, name, **{f"_raise_exceptions_for_{kind}": raises for kind, raises in quiet.items()})
    return found is not None


def hub_id(dataset: str) -> str | None:
    """Of a data set of the Hub, not of an embedded one, a folder or a file."""
    return dataset if "/" in dataset and not Path(dataset).exists() else None


def check_new(folder: Path, source: str | None = None) -> None:
    """Raise a ValueError unless `folder` is new or empty, and another than that of the `source`."""
    if source is not None and Path(source).is_dir() and folder.resolve() == Path(source).resolve():
        raise ValueError(f"{folder}: expected another folder than that of the source. Nothing was changed.")
    if not is_free(folder):
        raise ValueError(f"{folder}: expected a new or empty folder, got one with content. Nothing was changed.")


def of_images(loaded) -> bool:
    """Whether what a model explains is images; CLIP and its like take texts beside them."""
    return hasattr(loaded, "_input_encoding")


def processor_of(loaded, source: str):
    """The image processor or the tokenizer of a loaded model. Raises a ValueError where it cannot be loaded."""
    auto = AutoImageProcessor if of_images(loaded) else AutoTokenizer
    if not any(_has(source, name) for name in FILES[auto]):
        what = "an image processor" if of_images(loaded) else "a tokenizer"
        raise ValueError(f"{source}: expected {what} beside the model, found none of {', '.join(FILES[auto])}.")
    return saved_processor(auto, source)


def written_target(loaded, text: str | None, columns=()) -> int | str | None:
    """What --target says: None, one of `columns`, or a class by its name (which stays) or number.

    Raises:
        ValueError: there is no such class.
    """
    if text is None or text in columns:
        return text
    names = class_names(loaded.config)
    number = written_class(text, names)
    return text if text in distinct_names(names) else number
