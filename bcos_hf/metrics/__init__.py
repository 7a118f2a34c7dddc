"""Measures of explanations: pure functions here, `evaluate.Metric` classes in the files that `evaluate.load` takes."""

from .bootstrap import bootstrap_interval
from .completeness import relative_residual
from .contrastive_pairs import ContrastivePair, play_evidence_rank
from .energy_pointing_game import energy_pointing_shares
from .evaluation import evaluate_classifier
from .evidence_rank import expected_reciprocal_ranks, reciprocal_ranks
from .grid_pointing_game import grid_pointing_shares
from .grid_protocol import play_grid_pointing_game, play_grids, predicted_logits
from .grids import compose_grids, published_grids, sample_grids, strided_contributions
from .lattice import lattice_strength
from .perturbation import FRACTIONS, area_under_curve, faithfulness, faithfulness_areas, perturbation_drops, rationale
from .pixel_perturbation import curve_area, deletion_curve, insertion_curve
from .prediction_agreement import compare_predictions
from .random_scores import random_scores
from .randomisation import randomisation_sensitivity
from .rank_agreement import rank_agreement
from .rationale_agreement import marked_tokens, rationale_agreement
from .sequence_pairs import confident_texts, pair_inputs, play_sequence_pointing_game, sample_pairs
from .sequence_pointing_game import sequence_pointing_shares
from .zero_shot import ZeroShotClassifier, class_embeddings, image_embeddings, linear_probe_accuracy, zero_shot_accuracy


__all__ = [
    "FRACTIONS",
    "ContrastivePair",
    "ZeroShotClassifier",
    "area_under_curve",
    "bootstrap_interval",
    "class_embeddings",
    "compare_predictions",
    "compose_grids",
    "confident_texts",
    "curve_area",
    "deletion_curve",
    "energy_pointing_shares",
    "evaluate_classifier",
    "expected_reciprocal_ranks",
    "faithfulness",
    "faithfulness_areas",
    "grid_pointing_shares",
    "image_embeddings",
    "insertion_curve",
    "lattice_strength",
    "linear_probe_accuracy",
    "marked_tokens",
    "pair_inputs",
    "perturbation_drops",
    "play_evidence_rank",
    "play_grid_pointing_game",
    "play_grids",
    "play_sequence_pointing_game",
    "predicted_logits",
    "published_grids",
    "random_scores",
    "randomisation_sensitivity",
    "rank_agreement",
    "rationale",
    "rationale_agreement",
    "reciprocal_ranks",
    "relative_residual",
    "sample_grids",
    "sample_pairs",
    "sequence_pointing_shares",
    "strided_contributions",
    "zero_shot_accuracy",
]
