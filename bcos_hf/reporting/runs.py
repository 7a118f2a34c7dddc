"""Train or load each model of an experiment, once a seed, and measure it; what is there with the same settings is reused, so that a run can go on."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
import yaml
from transformers import TrainingArguments

from bcos_hf import training
from bcos_hf.metrics.cost import machine
from bcos_hf.models.bcos_writing import write_json, write_text

from .experiment import Experiment
from .explainers import explainer_name, explainers_of
from .image_measures import IMAGE_MEASURES
from .subjects import PictureSubject, PromptSubject, Subject, TextSubject
from .text_measures import TEXT_MEASURES


def _clip_trainer(*settings):
    """As `clip_trainer`; the folder gets the texts' side too."""
    trainer, inputs = training.clip_trainer(*settings)
    training.save_text_side(settings[0].teacher, trainer.processing_class, trainer.args.output_dir)
    return trainer, inputs


class Task(NamedTuple):
    """How models of a kind are trained and measured: dataclasses of the recipe's settings, what makes a trainer of them, a subject, and measures by name."""

    settings: tuple[type, ...]
    trainer: Callable
    subject: type[Subject]
    measures: dict[str, Callable]


TASKS = {
    "text": Task((training.ModelArguments, training.DataArguments), training.text_trainer, TextSubject, TEXT_MEASURES),
    "image": Task((training.ImageModelArguments, training.ImageDataArguments), training.image_trainer, PictureSubject, IMAGE_MEASURES),
    "clip": Task((training.CLIPArguments, training.PictureArguments), _clip_trainer, PromptSubject, IMAGE_MEASURES),
}


def settings_of(experiment: Experiment, model: str, seed: int, folder: Path) -> tuple:
    """The recipe's settings of one training, parsed."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {**experiment.recipe, **experiment.models[model], "seed": seed, "output_dir": str(folder)}
    file = folder.parent / f"{folder.name}.yaml"
    write_text(file, yaml.safe_dump(values))
    return training.parse([str(file)], *TASKS[experiment.task].settings, TrainingArguments)


def _trained(experiment: Experiment, model: str, seed: int, output: Path) -> Path:
    folder = output / f"{model}-{seed}"
    settings = {"recipe": experiment.recipe, "model": experiment.models[model], "seed": seed}

    def train() -> None:
        trainer, data = TASKS[experiment.task].trainer(*settings_of(experiment, model, seed, folder))
        if not trainer.args.do_train:  # what is trained, `train_and_test` saves
            trainer.save_model()
            trainer.save_state()
        training.train_and_test(trainer, data)

    return training.done_once(folder, settings, train)


def _history(folder: Path) -> list[list[float]]:
    """[step, validation accuracy] along the training."""
    entries = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return [[entry["step"], entry["eval_accuracy"]] for entry in entries if "eval_accuracy" in entry]


def _subjects(experiment: Experiment, seed: int, folders: dict[int, dict[str, Path]]) -> dict[str, Subject]:
    """The explained models of a seed, each with its `other` of the next seed, if there is one."""
    device = "cuda" if torch.cuda.is_available() and not experiment.recipe.get("use_cpu") else "cpu"
    following = experiment.seeds[(experiment.seeds.index(seed) + 1) % len(experiment.seeds)]

    def subject(name: str, seed: int, other: Subject | None = None) -> Subject:
        made = partial(explainers_of, experiment.explainers[name], seed)
        with TemporaryDirectory() as unused:  # nothing is trained, so nothing is left there
            arguments = settings_of(experiment, name, seed, Path(unused, name))
        return TASKS[experiment.task].subject(name, folders[seed][name], arguments, seed, device, made, other)

    return {name: subject(name, seed, None if following == seed else subject(name, following)) for name in experiment.explainers}


def _measured(experiment: Experiment, seed: int, folders: dict[int, dict[str, Path]], output: Path) -> dict:
    """model -> explainer -> measure -> interval; a file for each measure."""
    subjects, merged = None, {model: {explainer_name(given): {} for given in names} for model, names in experiment.explainers.items()}
    for name, options in experiment.measures.items():
        settings = {"seed": seed, "recipe": experiment.recipe, "models": experiment.models, "explainers": experiment.explainers, "measure": {name: options}}
        if name == "seed_stability":
            settings["seeds"] = experiment.seeds
        file = output / f"{name}-{seed}.json"
        if (found := training.earlier_result(file, settings)) is None:
            subjects = subjects or _subjects(experiment, seed, folders)
            made = {model: TASKS[experiment.task].measures[name](subject, subjects, **options) for model, subject in subjects.items()}
            found = {"settings": settings, "explanations": made}
            write_json(file, found)
        for model, explainers in found["explanations"].items():
            for explainer, intervals in explainers.items():
                merged[model][explainer].update(intervals)
    return merged


def run_experiment(experiment: Experiment, output: str | Path) -> dict:
    """Everything that the experiment's result file holds.

    Args:
        output: a folder for models and measures, which a further run takes up.

    Returns:
        {"name", "title", "remark", "experiment", "machine", "runs": seed -> {"accuracy": model -> number, "history": model -> [[step, accuracy]],
        "explanations": model -> explainer -> measure -> {"mean", "low", "high", "n"}}}.

    Raises:
        ValueError: a measure that there is not, before anything is trained. FileExistsError: a folder with content that was not made here.
    """
    if unknown := sorted(experiment.measures.keys() - TASKS[experiment.task].measures.keys()):
        raise ValueError(f"{experiment.name}: unknown measures {unknown}; expected some of {sorted(TASKS[experiment.task].measures)}.")
    output, runs = training.own_folder(output), {}
    folders = {seed: {model: _trained(experiment, model, seed, output) for model in experiment.models} for seed in experiment.seeds}
    for seed, of_seed in folders.items():
        accuracy = {model: json.loads((folder / "all_results.json").read_text())["test_accuracy"] for model, folder in of_seed.items()}
        history = {model: _history(folder) for model, folder in of_seed.items()}
        runs[str(seed)] = {"accuracy": accuracy, "history": history, "explanations": _measured(experiment, seed, folders, output)}
    hardware = {**machine(), "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None}
    described = {"models": experiment.models, "claims": experiment.claims, "recipe": experiment.recipe, "measures": experiment.measures}
    texts = {"name": experiment.name, "title": experiment.title, "remark": experiment.remark}
    return {**texts, "experiment": described, "machine": hardware, "runs": runs}
