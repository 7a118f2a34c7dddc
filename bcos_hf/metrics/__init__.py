"""Measures of explanations: pure functions here, `evaluate.Metric` classes in the files that `evaluate.load` takes."""

from .bootstrap import bootstrap_interval
from .completeness import relative_residual
from .energy_pointing_game import energy_pointing_shares
from .evaluation import evaluate_classifier
from .grid_pointing_game import grid_pointing_shares
from .grid_protocol import play_grid_pointing_game, play_grids, predicted_logits
from .grids import compose_grids, published_grids, sample_grids, strided_contributions
from .perturbation import FRACTIONS, area_under_curve, faithfulness, perturbation_drops, rationale
from .pixel_perturbation import curve_area, deletion_curve, insertion_curve
from .random_scores import random_scores
from .zero_shot import ZeroShotClassifier, class_embeddings, image_embeddings, linear_probe_accuracy, zero_shot_accuracy


__all__ = [
    "FRACTIONS",
    "ZeroShotClassifier",
    "area_under_curve",
    "bootstrap_interval",
    "class_embeddings",
    "compose_grids",
    "curve_area",
    "deletion_curve",
    "energy_pointing_shares",
    "evaluate_classifier",
    "faithfulness",
    "grid_pointing_shares",
    "image_embeddings",
    "insertion_curve",
    "linear_probe_accuracy",
    "perturbation_drops",
    "play_grid_pointing_game",
    "play_grids",
    "predicted_logits",
    "published_grids",
    "random_scores",
    "rationale",
    "relative_residual",
    "sample_grids",
    "strided_contributions",
    "zero_shot_accuracy",
]
