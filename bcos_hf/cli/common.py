"""What the commands share: the app, errors as one line, results as text or as JSON, models and processors loaded."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, AutoModelForSequenceClassification, AutoTokenizer

from bcos_hf.models.bcos_writing import is_free


app = typer.Typer(no_args_is_help=True, add_completion=False, help="Pretrained networks, made inherently interpretable.")
AS_JSON = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@contextmanager
def told() -> Iterator[None]:
    """Expected errors as one line on standard error and status 1."""
    try:
        yield
    except (ValueError, OSError, RuntimeError, TypeError, ImportError) as error:
        typer.echo(f"bcos-hf: {error}", err=True)
        raise typer.Exit(1) from error


def say(result: dict, as_json: bool, text: str) -> None:
    """Print `result` as one JSON object, or `text`."""
    typer.echo(json.dumps(result) if as_json else text)


def processors(source: str) -> list:
    """The tokenizer and the image processor of a model, those that there are."""
    found = []
    for auto, options in ((AutoTokenizer, {}), (AutoImageProcessor, {"backend": "pil"})):
        try:
            found.append(auto.from_pretrained(source, **options))
        except (OSError, ValueError, KeyError):
            continue
    return found


def hub_id(dataset: str) -> str | None:
    """Of a data set of the Hub, not of an embedded one, a folder or a file."""
    return dataset if "/" in dataset and not Path(dataset).exists() else None


def check_new(folder: Path, source: str | None = None) -> None:
    """Raise a ValueError unless `folder` is new or empty, and another than that of the `source`."""
    if source is not None and Path(source).is_dir() and folder.resolve() == Path(source).resolve():
        raise ValueError(f"{folder}: expected another folder than that of the source. Nothing was changed.")
    if not is_free(folder):
        raise ValueError(f"{folder}: expected a new or empty folder, got one with content. Nothing was changed.")


def load(model: str):
    """A B-cos classifier, in evaluation mode. Raises a ValueError for another model."""
    name = (AutoConfig.from_pretrained(model).architectures or [""])[0]
    auto = AutoModelForImageClassification if name.endswith("ForImageClassification") else AutoModelForSequenceClassification
    loaded = auto.from_pretrained(model).eval()
    if not hasattr(loaded, "explain"):
        raise ValueError(f"{model}: expected a B-cos model, got a {type(loaded).__name__}. Convert it: bcos-hf convert {model} FOLDER.")
    return loaded


def processor_of(loaded, source: str):
    """The image processor or the tokenizer of a loaded classifier."""
    pictures = loaded.main_input_name == "pixel_values"
    return AutoImageProcessor.from_pretrained(source, backend="pil") if pictures else AutoTokenizer.from_pretrained(source)
