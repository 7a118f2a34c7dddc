"""Train or load each model of an experiment, once a seed, and measure it; what is there with the same settings is reused, so that a run can go on."""

import json
from pathlib import Path

import torch
import yaml
from transformers import AutoModel, AutoModelForImageClassification, AutoModelForSequenceClassification, TrainingArguments

from bcos_hf import training
from bcos_hf.metrics.cost import machine

from .experiment import Experiment
from .image_measures import measure_pictures, measure_prompts
from .text_measures import measure_texts


def _clip_trainer(*settings):
    """As `clip_trainer`; the folder gets the texts' side, and the model too, which stays as it is where nothing is trained."""
    trainer, inputs = training.clip_trainer(*settings)
    trainer.save_model()
    trainer.save_state()
    training.save_text_side(settings[0].teacher, trainer.processing_class, trainer.args.output_dir)
    return trainer, inputs


# task -> dataclasses of its settings, what makes its trainer, its Auto class, what measures
TASKS = {
    "text": ((training.ModelArguments, training.DataArguments), training.text_trainer, AutoModelForSequenceClassification, measure_texts),
    "image": ((training.ImageModelArguments, training.ImageDataArguments), training.image_trainer, AutoModelForImageClassification, measure_pictures),
    "clip": ((training.CLIPArguments, training.PictureArguments), _clip_trainer, AutoModel, measure_prompts),
}


def settings_of(experiment: Experiment, model: str, seed: int, folder: Path) -> tuple:
    """The recipe's settings of one training, parsed."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {**experiment.recipe, **experiment.models[model], "seed": seed, "output_dir": str(folder)}
    file = folder.parent / f"{folder.name}.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return training.parse([str(file)], *TASKS[experiment.task][0], TrainingArguments)


def _trained(experiment: Experiment, model: str, seed: int, output: Path) -> Path:
    folder = output / f"{model}-{seed}"
    settings = {"recipe": experiment.recipe, "model": experiment.models[model], "seed": seed}

    def train() -> None:
        trainer, data = TASKS[experiment.task][1](*settings_of(experiment, model, seed, folder))
        training.train_and_test(trainer, data)

    return training.done_once(folder, settings, train)


def _history(folder: Path) -> list[list[float]]:
    """[step, validation accuracy] along the training."""
    entries = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return [[entry["step"], entry["eval_accuracy"]] for entry in entries if "eval_accuracy" in entry]


def _measured(experiment: Experiment, seed: int, folders: dict[str, Path], output: Path) -> dict:
    settings = {"seed": seed, "recipe": experiment.recipe, "models": experiment.models, "explainers": experiment.explainers, "measures": experiment.measures}
    file = output / f"measures-{seed}.json"
    if (found := training.earlier_result(file, settings)) is not None:
        return found["explanations"]
    auto, measure = TASKS[experiment.task][2:]
    device = "cuda" if torch.cuda.is_available() and not experiment.recipe.get("use_cpu") else "cpu"
    models = {name: auto.from_pretrained(folders[name]).eval().to(device) for name in experiment.explainers}
    arguments = settings_of(experiment, next(iter(experiment.models)), seed, output / "unused")
    made = measure(experiment, models, folders, arguments, seed)
    file.write_text(json.dumps({"settings": settings, "explanations": made}, indent=2) + "\n", encoding="utf-8")
    return made


def run_experiment(experiment: Experiment, output: str | Path) -> dict:
    """Everything that the experiment's result file holds.

    Args:
        output: a folder for models and measures, which a further run takes up.

    Returns:
        {"name", "title", "remark", "experiment", "machine", "runs": seed -> {"accuracy": model -> number, "history": model -> [[step, accuracy]],
        "explanations": model -> explainer -> measure -> {"mean", "low", "high", "n"}}}.
    """
    output, runs = Path(output), {}
    for seed in experiment.seeds:
        folders = {model: _trained(experiment, model, seed, output) for model in experiment.models}
        accuracy = {model: json.loads((folder / "all_results.json").read_text())["test_accuracy"] for model, folder in folders.items()}
        history = {model: _history(folder) for model, folder in folders.items()}
        runs[str(seed)] = {"accuracy": accuracy, "history": history, "explanations": _measured(experiment, seed, folders, output)}
    hardware = {**machine(), "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None}
    described = {"models": experiment.models, "claims": experiment.claims, "recipe": experiment.recipe, "measures": experiment.measures}
    texts = {"name": experiment.name, "title": experiment.title, "remark": experiment.remark}
    return {**texts, "experiment": described, "machine": hardware, "runs": runs}
