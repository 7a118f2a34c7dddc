"""Experiments: models trained over seeds, explained by many methods, measured, and the papers' claims judged by the numbers."""

from .claims import judged
from .experiment import Experiment
from .figures import plot_experiment
from .pages import experiment_page, results_page
from .runs import run_experiment


__all__ = ["Experiment", "experiment_page", "judged", "plot_experiment", "results_page", "run_experiment"]
