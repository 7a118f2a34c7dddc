"""A model on a whole data set: explain-dataset, evaluate."""

from pathlib import Path
from typing import Annotated

import typer

from bcos_hf.data import explain_dataset as explain_rows
from bcos_hf.data import find_columns, load_split
from bcos_hf.data.one_split import resolved
from bcos_hf.data.splits import sample
from bcos_hf.hub.push import save_evaluation
from bcos_hf.metrics import evaluate_classifier
from bcos_hf.models.bcos_writing import write_json

from .common import AS_JSON, app, hub_id, load, of_images, processor_of, say, told, written_target


MODEL = Annotated[str, typer.Argument(help="Hub id or folder of a B-cos classifier.")]
DATASET = Annotated[str, typer.Argument(help="Hub id, folder of pictures, or csv, json(l) or parquet file.")]
SPLIT = Annotated[str, typer.Option(help="Of a file it is only a name.")]
BATCH = Annotated[int, typer.Option(help="Rows at a time.")]
LIMIT = Annotated[int | None, typer.Option(help="At most so many rows: drawn with the seed, of a stream the first; left out: all.")]
SEED = Annotated[int, typer.Option(help="Of drawn rows, intervals and grids.")]
STREAMING = Annotated[bool, typer.Option(help="Store nothing of the data set locally.")]
INPUT = Annotated[str | None, typer.Option(help="Column of pictures or texts; left out: found by name or type.")]
SECOND = Annotated[str | None, typer.Option(help="Column of second texts.")]
LABEL = Annotated[str | None, typer.Option(help="Column of labels; left out: found by name or type.")]


def _loaded(model: str, dataset: str, split: str, limit: int | None, seed: int, streaming: bool, input_column, second, label) -> tuple:
    """Model, processor, rows and columns."""
    loaded = load(model)
    rows = resolved(load_split(dataset, split, streaming=streaming, seed=seed))
    if limit is not None:
        rows = rows.take(limit) if streaming else sample(rows, limit, seed)
    return loaded, processor_of(loaded, model), rows, find_columns(rows.features, of_images(loaded), input_column, second, label)


@app.command("explain-dataset")
def explain_dataset(
    model: MODEL,
    dataset: DATASET,
    output: Annotated[Path, typer.Argument(help="Folder of the parquet files; an interrupted run goes on there.")],
    split: SPLIT = "test",
    target: Annotated[str | None, typer.Option(help="Column, or name or number of a class, to explain; left out: the predicted one.")] = None,
    batch_size: BATCH = 16,
    rows_per_file: Annotated[int, typer.Option(help="Rows of the data set for each parquet file.")] = 1000,
    dtype: Annotated[str, typer.Option(help="Of the contributions: 'float32' or 'float16'.")] = "float32",
    limit: LIMIT = None,
    seed: SEED = 0,
    streaming: STREAMING = False,
    input_column: INPUT = None,
    second_text_column: SECOND = None,
    label_column: LABEL = None,
    push_to: Annotated[str | None, typer.Option(help="organisation/name of a data set on the Hub.")] = None,
    private: bool = False,
    as_json: AS_JSON = False,
) -> None:
    """Explain a data set, as a data set: bcos-hf explain-dataset bcos-resnet cifar10 explained --split test --target label --push-to org/explained"""
    with told():
        loaded, processor, rows, columns = _loaded(model, dataset, split, limit, seed, streaming, input_column, second_text_column, label_column)
        made = explain_rows(
            loaded, processor, rows, output, batch_size=batch_size, target=written_target(loaded, target, rows.features),
            rows_per_file=rows_per_file, split=split, columns=columns, dtype=dtype, source=hub_id(dataset),
        )  # fmt: skip
        if push_to is not None:
            from bcos_hf.hub import push_explanations  # here, as the rest needs no network

            made["address"] = push_explanations(output, push_to, private=private)
        text = f"{made['rows']} rows explained, {made['skipped']} skipped, in {len(made['files'])} files. Saved to {output}."
        say(made, as_json, text, *filter(None, [made.get("address")]))


@app.command()
def evaluate(
    model: MODEL,
    dataset: DATASET,
    split: SPLIT = "test",
    metric: Annotated[list[str] | None, typer.Option(help="Names, separated by commas or given again; left out: all that apply.")] = None,
    batch_size: BATCH = 16,
    grids: Annotated[int, typer.Option(help="Grids of 2 x 2 for the grid pointing game.")] = 50,
    threshold: Annotated[float, typer.Option(help="Confidence that pictures of a grid must exceed.")] = 0.5,
    limit: LIMIT = None,
    seed: SEED = 0,
    streaming: STREAMING = False,
    input_column: INPUT = None,
    second_text_column: SECOND = None,
    label_column: LABEL = None,
    output: Annotated[Path | None, typer.Option(help="JSON file of the results.")] = None,
    save: Annotated[bool, typer.Option("--save", help="Leave the results in the model's folder, for the card of its push.")] = False,
    as_json: AS_JSON = False,
) -> None:
    """Measure a classifier: bcos-hf evaluate bcos-resnet cifar10 --metric accuracy,grid_pointing_game --limit 1000 --output results.json"""
    with told():
        if save and not Path(model).is_dir():
            raise ValueError(f"--save: expected the folder of a model, got {model!r}.")
        loaded, processor, rows, columns = _loaded(model, dataset, split, limit, seed, streaming, input_column, second_text_column, label_column)
        names = [name.strip() for text in metric or [] for name in text.split(",")] or None
        options = {"columns": columns, "batch_size": batch_size, "seed": seed, "count": grids, "threshold": threshold}
        made = {"model": model, "dataset": dataset, "split": split, **evaluate_classifier(loaded, processor, rows, names, **options)}
        if output is not None:
            write_json(output, made)
        if save:
            save_evaluation(model, made["metrics"], [hub_id(dataset)] if hub_id(dataset) else None)
        lines = [f"{name}: {value['mean']:.4g} ({value['low']:.4g} to {value['high']:.4g}, n = {value['n']})" for name, value in made["metrics"].items()]
        say(made, as_json, *lines)
