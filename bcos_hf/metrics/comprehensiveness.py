"""Comprehensiveness for `evaluate.load`: the area under the mean drop of the class probability over rationale sizes; higher is better."""

import datasets
import evaluate

from bcos_hf.metrics.perturbation import FRACTIONS, measured_drops


class Comprehensiveness(evaluate.Metric):
    """`compute(predictions=P [N, F], references=p [N])`: probabilities after masking at each of the F fractions, and before; with a 95 % interval over texts.

    `random`: the same as predictions for a random order of the tokens, the baseline.
    """

    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="DeYoung et al., ERASER: A Benchmark to Evaluate Rationalized NLP Models, ACL 2020.",
            inputs_description="predictions: class probabilities with the rationale masked, one a fraction; references: for the whole text.",
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("float64")}),
        )

    def _compute(self, predictions, references, fractions=FRACTIONS, random=None, seed=0):
        return measured_drops("comprehensiveness", predictions, references, random, fractions, seed)
