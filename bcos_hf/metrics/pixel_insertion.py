"""Pixel insertion for `evaluate.load`: the area under the probability of the class as pixels appear, the most important first; higher is better."""

import datasets
import evaluate
import torch

from bcos_hf.metrics.bootstrap import measured
from bcos_hf.metrics.pixel_perturbation import curve_area


class PixelInsertion(evaluate.Metric):
    """`compute(predictions=curves [N, steps + 1])` of `insertion_curve` (pixel_perturbation.py): mean area in [0, 1] with its 95 % interval."""

    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Petsiuk et al., RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018.",
            inputs_description="predictions: probabilities of the class at equal fractions of pixels inserted, from none to all.",
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("float64"))}),
        )

    def _compute(self, predictions, random=None, seed=0):
        ours, chance = (None if given is None else curve_area(torch.as_tensor(given, dtype=torch.float64)) for given in (predictions, random))
        return measured("pixel_insertion", ours, chance, seed)
