"""Comprehensiveness for `evaluate.load`: the area under the mean drop of the class probability over rationale sizes; higher is better."""

import datasets
import evaluate
import numpy as np

from bcos_hf.metrics.perturbation import FRACTIONS, area_under_curve


class Comprehensiveness(evaluate.Metric):
    """`compute(predictions=P [N, F], references=p [N])`: probabilities after masking at each of the F fractions, and before."""

    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="DeYoung et al., ERASER: A Benchmark to Evaluate Rationalized NLP Models, ACL 2020.",
            inputs_description="predictions: class probabilities with the rationale masked, one a fraction; references: for the whole text.",
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("float64")}),
        )

    def _compute(self, predictions, references, fractions=FRACTIONS):
        drops = np.asarray(references)[:, None] - np.asarray(predictions)
        if drops.shape[1] != len(fractions):
            raise ValueError(f"predictions: expected {len(fractions)} probabilities a text, one a fraction, got {drops.shape[1]}.")
        return {"comprehensiveness": area_under_curve(drops.mean(0), fractions)}
