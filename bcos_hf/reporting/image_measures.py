"""Measures of explanations of pictures, of several models and methods, on the same test pictures."""

from functools import partial

import torch
from transformers import AutoImageProcessor
from transformers.utils import logging

from bcos_hf import training
from bcos_hf.data import stacked
from bcos_hf.metrics import bootstrap_interval, deletion_curve, insertion_curve, play_grid_pointing_game

from .explainers import explainers_of


logger = logging.get_logger(__name__)
CURVES = {"pixel_deletion": deletion_curve, "pixel_insertion": insertion_curve}


def measure_pictures(experiment, models: dict, folders: dict, arguments: tuple, seed: int) -> dict:
    """model -> explainer -> measure -> interval, see `run_experiment`.

    Measures: grid_pointing_game {count, smooth, threshold} (grids of each model's own confident pictures; left out where there are too few), pixel_deletion
    and pixel_insertion {count}.
    """
    wanted, made = experiment.measures, {model: {} for model in models}
    for model in models:
        processor = AutoImageProcessor.from_pretrained(folders[model], backend="pil")
        pictures, labels = stacked(training.image_inputs(processor, *arguments[1:])["test"], "test pictures")
        explainers = {name: explain for owner, name, explain in explainers_of(experiment, models, seed) if owner == model}
        larger = {} if len(models[model].config.to_dict().get("hidden_sizes") or []) else {"interpolate_pos_encoding": True}
        if "grid_pointing_game" in wanted:
            callables = {name: partial(explain, **larger) for name, explain in explainers.items()}
            try:
                played = play_grid_pointing_game(models[model], callables, pictures, labels, seed=seed, **wanted["grid_pointing_game"])
            except ValueError as error:  # a weak model must not end an experiment of hours
                logger.warning(f"{model}, seed {seed}: no grid pointing game: {error}")
                played = {}
            for name, value in played.items():
                made[model].setdefault(name, {})["grid_pointing_game"] = {key: value[key] for key in ("mean", "low", "high")}
                made[model][name]["grid_pointing_game"]["n"] = wanted["grid_pointing_game"].get("count", 50)
        for measure in CURVES.keys() & wanted.keys():
            chosen = pictures[: wanted[measure]["count"]].to(models[model].device)
            for name, explain in explainers.items():
                areas = _areas(models[model], explain, chosen, CURVES[measure])
                made[model].setdefault(name, {})[measure] = {**bootstrap_interval(areas, seed=seed), "n": len(areas)}
    return made


def _areas(model, explain, pictures: torch.Tensor, curve) -> torch.Tensor:
    """Areas [N] under the predicted class's probability."""
    found = []
    for part in pictures.split(25):
        made = explain(pixel_values=part)
        found.append(curve(lambda images: model(pixel_values=images).logits.softmax(-1), part, made.contributions[:, 0], made.targets[:, 0])[1].cpu())
    return torch.cat(found)
