"""Measures of explanations of pictures, of several models and methods, on the same test pictures; for CLIPs, explanations of the classes' prompts."""

from functools import partial

import torch
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.utils import logging

from bcos_hf import training
from bcos_hf.data import prompts_of, stacked
from bcos_hf.metrics import ZeroShotClassifier, bootstrap_interval, class_embeddings, deletion_curve, insertion_curve, play_grid_pointing_game

from .explainers import explainers_of


logger = logging.get_logger(__name__)
CURVES = {"pixel_deletion": deletion_curve, "pixel_insertion": insertion_curve}


def measure_pictures(experiment, models: dict, folders: dict, arguments: tuple, seed: int) -> dict:
    """model -> explainer -> measure -> interval, see `run_experiment`.

    Measures: grid_pointing_game {count, smooth, threshold} (grids of each model's own confident pictures; left out where there are too few), pixel_deletion
    and pixel_insertion {count}.
    """
    made = {}
    for name, model in models.items():
        inputs = training.image_inputs(AutoImageProcessor.from_pretrained(folders[name], backend="pil"), *arguments[1:])
        made[name] = _measured(experiment, name, model, model.config, inputs["test"], seed)
    return made


def measure_prompts(experiment, models: dict, folders: dict, arguments: tuple, seed: int) -> dict:
    """The same for models of pictures and texts, as zero-shot classifiers whose classes are the prompts of the recipe's `templates`.

    Logits are cosines times the model's own scale, which the pixel measures' probabilities depend on.
    """
    made = {}
    for name, model in models.items():
        inputs, names = training.clip_inputs(AutoImageProcessor.from_pretrained(folders[name], backend="pil"), *arguments[1:])
        classes = class_embeddings(model, AutoTokenizer.from_pretrained(folders[name]), prompts_of(names, arguments[0].templates))
        classifier = ZeroShotClassifier(model, classes, model.logit_scale.exp().item())
        made[name] = _measured(experiment, name, classifier, model.config.vision_config, inputs["test"], seed)
    return made


def _measured(experiment, name: str, model, config, inputs, seed: int) -> dict:
    """explainer -> measure -> interval, of one classifier."""
    wanted, pictures_and_labels = experiment.measures, stacked(inputs, "test pictures")
    explainers = {explainer: explain for _, explainer, explain in explainers_of(experiment, {name: model}, seed)}
    made = {explainer: {} for explainer in explainers}
    larger = {} if len(config.to_dict().get("hidden_sizes") or []) else {"interpolate_pos_encoding": True}
    if "grid_pointing_game" in wanted:
        callables = {explainer: partial(explain, **larger) for explainer, explain in explainers.items()}
        try:
            played = play_grid_pointing_game(model, callables, *pictures_and_labels, seed=seed, **wanted["grid_pointing_game"])
        except ValueError as error:  # a weak model must not end an experiment of hours
            logger.warning(f"{name}, seed {seed}: no grid pointing game: {error}")
            played = {}
        for explainer, value in played.items():
            interval = {key: value[key] for key in ("mean", "low", "high")}
            made[explainer]["grid_pointing_game"] = {**interval, "n": wanted["grid_pointing_game"].get("count", 50)}
    for measure in [name for name in CURVES if name in wanted]:
        chosen = pictures_and_labels[0][: wanted[measure]["count"]].to(model.device)
        for explainer, explain in explainers.items():
            areas = _areas(model, explain, chosen, CURVES[measure])
            made[explainer][measure] = {**bootstrap_interval(areas, seed=seed), "n": len(areas)}
    return made


def _areas(model, explain, pictures: torch.Tensor, curve) -> torch.Tensor:
    """Areas [N] under the predicted class's probability."""
    found = []
    for part in pictures.split(25):
        made = explain(pixel_values=part)
        found.append(curve(lambda images: model(pixel_values=images).logits.softmax(-1), part, made.contributions[:, 0], made.targets[:, 0])[1].cpu())
    return torch.cat(found)
