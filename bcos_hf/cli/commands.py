"""Train, explain, push: one model, and what goes in and comes out of it."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import datasets
import pyarrow.parquet as pq
import typer
from PIL import Image
from tqdm.auto import tqdm
from transformers import TrainingArguments

from bcos_hf import training
from bcos_hf.data import explain_dataset
from bcos_hf.models.bcos_class_names import class_names, distinct_names
from bcos_hf.visualization.reading import visible

from .common import AS_JSON, app, load, saved_processors, say, told
from .errors import message_of
from .explaining import Explainer
from .figure_names import figure_file


# task -> what parses its settings, and what makes its trainer
TASKS = {
    "text": ((training.ModelArguments, training.DataArguments), training.text_trainer),
    "causal-lm": ((training.CausalModelArguments, training.RunningTextArguments), training.causal_lm_trainer),
    "image": ((training.ImageModelArguments, training.ImageDataArguments), training.image_trainer),
    "clip": ((training.CLIPArguments, training.PictureArguments), training.clip_trainer),
}


FORMATS = ("png", "html", "parquet")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(context: typer.Context, task: Annotated[str, typer.Argument(help="text, causal-lm, image or clip.")]) -> None:
    """Train with the settings of a recipe: bcos-hf train image config.yaml --b 1.5 (all options: ... --help of recipes/)"""
    with told():
        if task not in TASKS:
            raise ValueError(f"train: expected one of {sorted(TASKS)}, got {task!r}.")
        dataclasses, trainer_of = TASKS[task]
        trainer, inputs = trainer_of(*training.parse(context.args, *dataclasses, TrainingArguments))
        metrics = training.train_and_test(trainer, inputs)
        say({"output_dir": trainer.args.output_dir, **metrics}, True)


def _pictures(paths: list[Path]) -> list[Path]:
    kinds = set(Image.registered_extensions())
    inside = [sorted(file for file in path.rglob("*") if file.suffix.lower() in kinds) if path.is_dir() else [path] for path in paths]
    return [file for files in inside for file in files]


@app.command()
def explain(
    model: Annotated[str, typer.Argument(help="Hub id or folder of a B-cos model.")],
    inputs: Annotated[list[str], typer.Argument(help="Pictures or folders of pictures; or texts, for a model of texts.")],
    output: Annotated[Path, typer.Option(help="Folder of the figures, or of the data set.")] = Path("explanations"),
    form: Annotated[str, typer.Option("--format", help="'png', 'html', or 'parquet': a data set of contributions.")] = "png",
    target: Annotated[str | None, typer.Option(help="Name or number of the class to explain; left out: the predicted one.")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="Text that images are compared with; again for others.")] = None,
    position: Annotated[int | None, typer.Option(help="Number of the token whose logits are explained, from 0.")] = None,
    as_json: AS_JSON = False,
) -> None:
    """Explain pictures or texts: bcos-hf explain bcos-resnet photo.jpg folder/ --format html --target tabby"""
    with told():
        if form not in FORMATS:
            raise ValueError(f"--format: expected one of {FORMATS}, got {form!r}.")
        loaded = load(model)
        explainer = Explainer(loaded, model, target, prompt or (), position)
        items = _pictures([Path(text) for text in inputs]) if explainer.images else inputs
        if not items:
            raise ValueError(f"expected pictures, found none in {', '.join(inputs)}.")
        output.mkdir(parents=True, exist_ok=True)
        results, failed = (_tabled if form == "parquet" else _drawn)(explainer, items, output, form, as_json)
        lines = [_line(result) for result in results]
        say({"explanations": results, "failed": failed}, as_json, *lines)
        if failed:
            raise typer.Exit(1)


def _line(result: dict) -> str:
    """One result, for people."""
    note = f"; {result['note']}" if result.get("note") else ""
    return f"{result['input']}: {result['label']} ({result['logit']:.3f}), see {result['file']}{note}"


def _drawn(explainer: Explainer, items: list, output: Path, form: str, quiet: bool) -> tuple[list[dict], int]:
    """A figure of each input, and how many could not be explained."""
    results = []
    for item in tqdm(items, desc="explaining", disable=quiet):
        try:
            results.append(_explained(explainer, item, figure_file(output, item, form)))
        except Exception as error:  # decoders raise of all kinds, and one bad input does not end the run
            typer.echo(f"bcos-hf: {visible(item)}: {message_of(error)}", err=True)
    return results, len(items) - len(results)


def _tabled(explainer: Explainer, items: list, output: Path, form: str, quiet: bool) -> tuple[list[dict], int]:
    """Parquet files of all inputs, and how many could not be explained."""
    missing = [item for item in items if isinstance(item, Path) and not item.is_file()]
    for item in missing:
        typer.echo(f"bcos-hf: {item}: expected a file, found none.", err=True)
    if not (items := [item for item in items if item not in missing]):
        return [], len(missing)
    names = [str(item) for item in items]
    model, target = explainer.model, explainer.options.get("targets")
    rows = datasets.Dataset.from_dict({"text": names}) if not isinstance(items[0], Path) else datasets.Dataset.from_dict({"image": names})
    rows = rows if "text" in rows.features else rows.cast_column("image", datasets.Image())
    made = explain_dataset(model, explainer.processor, rows, output, target=target, split="explained")
    labels = distinct_names(class_names(model.config))
    results = []
    for file in made["files"]:
        found = pq.read_table(file, columns=["index", "target", "logit", "constant", "residual"]).to_pylist()
        results += [{"input": names[row.pop("index")], "label": labels[row.pop("target")], **row, "file": file} for row in found]
    return results, made["skipped"] + len(missing)


def _explained(explainer: Explainer, item, file: Path) -> dict:
    """The figure of one picture or text, and its numbers."""
    made, note, options = explainer(item)
    if file.suffix == ".png":
        made.plot(path=file, **options)
    else:
        title = f"{note[0].upper()}{note[1:]}" if note else None
        replace(made, weights=None).to_html(path=file, title=title, **options)
    label = made.labels[made.targets[0, 0]] if made.labels else str(made.targets[0, 0].item())
    numbers = {"logit": made.explained_logits[0, 0].item(), "constant": made.constant[0, 0].item(), "residual": made.residual[0, 0].item()}
    return {"input": str(item), "label": label, **numbers, "file": str(file), **({"note": note} if note else {})}


@app.command()
def push(
    folder: Annotated[str, typer.Argument(help="Folder of a B-cos model.")],
    repo_id: Annotated[str, typer.Argument(help="organisation/name on the Hub.")],
    example: Annotated[str | None, typer.Option(help="A text or the path of a picture, for the card.")] = None,
    license: Annotated[str | None, typer.Option(help="Left out: the base model's.")] = None,
    private: bool = False,
) -> None:
    """Push a model with its card and what `evaluate --save` measured: bcos-hf push bcos-resnet org/bcos-resnet --example photo.jpg"""
    with told():
        from bcos_hf.hub import push as push_model  # here, as the rest needs no network
        from bcos_hf.hub import recorded_evaluation

        facts = {"example": example, "license": license, "private": private, **recorded_evaluation(folder)}
        typer.echo(push_model(load(folder), repo_id, saved_processors(folder), **facts))
