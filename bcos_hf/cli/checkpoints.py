"""Import: a published checkpoint becomes a folder that every Auto class loads."""

from inspect import signature
from pathlib import Path
from typing import Annotated

import typer

from bcos_hf.checkpoints import FORMATS
from bcos_hf.models.bcos_writing import filled_at_once

from .common import AS_JSON, app, check_new, processors, say, told


@app.command("import")
def import_(
    kind: Annotated[str, typer.Argument(metavar="FORMAT", help=f"Whose checkpoint it is: {', '.join(FORMATS)}.")],
    source: Annotated[str, typer.Argument(help="A file, an https address, or the name of a published model.")],
    folder: Annotated[Path, typer.Argument(help="Where the model is saved, new or empty.")],
    name: Annotated[str | None, typer.Option(help="Which of the published models it is, where the source does not say.")] = None,
    as_json: AS_JSON = False,
) -> None:
    """Make a model folder of a published checkpoint: bcos-hf import bcos-v2 resnet50 bcos-resnet50"""
    with told():
        if kind not in FORMATS:
            raise ValueError(f"import: expected one of {sorted(FORMATS)}, got {kind!r}.")
        check_new(folder)
        read, processor_of = FORMATS[kind]
        given = {} if name is None else {"name": name}
        if not given.keys() <= signature(read).parameters.keys():
            raise ValueError(f"--name: expected none, as {kind} reads everything off the file; got {name!r}.")
        model = read(source, **given)
        beside = processors(source) if Path(source).is_dir() else []
        with filled_at_once(folder) as temporary:
            for part in (model, *beside, *([processor_of(source, **given)] if processor_of else [])):
                part.save_pretrained(temporary)
        made = {"model": type(model).__name__, "parameters": model.num_parameters(), "folder": str(folder)}
        say(made, as_json, f"{made['model']}, {made['parameters']:,} parameters. Saved to {folder}.")
