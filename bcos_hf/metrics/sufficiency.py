"""Sufficiency for `evaluate.load`: the area under the mean drop of the class probability over rationale sizes; lower is better."""

import datasets
import evaluate

from bcos_hf.metrics.perturbation import FRACTIONS, measured_drops


class Sufficiency(evaluate.Metric):
    """`compute(predictions=P [N, F], references=p [N])`: probabilities with the rationale alone at each of the F fractions, and of the whole text.

    The interval and `random` are as of Comprehensiveness.
    """

    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="DeYoung et al., ERASER: A Benchmark to Evaluate Rationalized NLP Models, ACL 2020.",
            inputs_description="predictions: class probabilities with only the rationale kept, one a fraction; references: for the whole text.",
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("float64")}),
        )

    def _compute(self, predictions, references, fractions=FRACTIONS, random=None, seed=0):
        return measured_drops("sufficiency", predictions, references, random, fractions, seed)
