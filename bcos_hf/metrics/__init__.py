"""Measures of explanations: pure functions here, `evaluate.Metric` classes in the files that `evaluate.load` takes."""

from .completeness import relative_residual
from .perturbation import FRACTIONS, area_under_curve, faithfulness, perturbation_drops, rationale


__all__ = ["FRACTIONS", "area_under_curve", "faithfulness", "perturbation_drops", "rationale", "relative_residual"]
