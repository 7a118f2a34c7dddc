"""Measures of explanations of pictures and of prompts, as in common_measures.py."""

from functools import partial

import torch
from transformers.utils import logging

from bcos_hf.metrics import deletion_curve, insertion_curve, play_grid_pointing_game

from .common_measures import COMMON, interval
from .subjects import PictureSubject


logger = logging.get_logger(__name__)


def grid_pointing_game(subject: PictureSubject, subjects: dict[str, PictureSubject], count: int = 50, **options) -> dict:
    """GridPG, on grids of the model's own confident pictures; nothing where there are too few."""
    explainers = {name: partial(explain, **subject.larger) for name, explain in subject.explainers.items()}
    try:
        played = play_grid_pointing_game(subject.model, explainers, *subject.pictures, count=count, seed=subject.seed, **options)
    except ValueError as error:  # a weak model must not end an experiment of hours
        logger.warning(f"{subject.name}, seed {subject.seed}: no grid pointing game: {error}")
        return {}
    return {name: {"grid_pointing_game": {**{key: value[key] for key in ("mean", "low", "high")}, "n": count}} for name, value in played.items()}


def _curve(measure: str, curve, subject: PictureSubject, subjects: dict[str, PictureSubject], count: int, **options) -> dict:
    """Areas under the predicted class's probability as pixels go by rank; options as of `insertion_curve`."""
    made = {}
    for name, explain in subject.explainers.items():
        areas = []
        for inputs, _ in subject.batches(count):
            found = explain(**inputs)
            given = (inputs["pixel_values"], found.contributions[:, 0], found.targets[:, 0])
            areas.append(curve(lambda pixels: subject.model(pixel_values=pixels).logits.softmax(-1), *given, **options)[1].cpu())
        made[name] = {measure: interval(torch.cat(areas), subject.seed)}
    return made


IMAGE_MEASURES = {
    "grid_pointing_game": grid_pointing_game,
    "pixel_deletion": partial(_curve, "pixel_deletion", deletion_curve),
    "pixel_insertion": partial(_curve, "pixel_insertion", insertion_curve),
    **COMMON,
}
