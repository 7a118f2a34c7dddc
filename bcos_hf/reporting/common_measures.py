"""Measures of explanations of anything: completeness, cost, sensitivity to randomised parts, and stability under the seed of the training.

Each takes a subject, the subjects of all models, and its options, and gives explainer -> measure -> {"mean", "low", "high", "n"}.
"""

import torch
from torch import Tensor

from bcos_hf.metrics import bootstrap_interval, randomisation_sensitivity, rank_agreement
from bcos_hf.metrics.cost import peak_tensor_memory, seconds

from .subjects import Subject


TRACED = 3  # inputs whose memory is measured: a trace of every allocation of a method of many passes is long


def interval(values: Tensor, seed: int) -> dict:
    """Mean, 95 % interval and number."""
    return {**bootstrap_interval(values, seed=seed), "n": len(values)}


def completeness(subject: Subject, subjects: dict[str, Subject], count: int) -> dict:
    """What contributions and constant lack of the explained logit, as a part of their absolute sum."""
    made = {}
    for name, explain in subject.explainers.items():
        residuals = [explain(**inputs).relative_residual[:, 0].cpu() for inputs, _ in subject.batches(count)]
        made[name] = {"relative_residual": interval(torch.cat(residuals), subject.seed)}
    return made


def cost(subject: Subject, subjects: dict[str, Subject], count: int) -> dict:
    """Seconds of an explanation over seconds of a forward pass of the same model, taken in turns, one input at a time; and peak bytes, of a few inputs."""

    @torch.no_grad()
    def forward(inputs: dict) -> None:
        subject.model(**inputs)
        _wait()

    def explanation(explain, inputs: dict) -> None:
        explain(**inputs)
        _wait()

    made = {}
    for name, explain in subject.explainers.items():
        ratios, memory = [], []
        explanation(explain, next(subject.batches(count, size=1))[0])  # the first call of all loads what a GPU loads lazily
        for inputs, _ in subject.batches(count, size=1):
            forward(inputs)  # the first of a shape is slower
            ratios.append(seconds(explanation, explain, inputs) / seconds(forward, inputs))
            if len(memory) < TRACED:
                peaks = [peak_tensor_memory(subject.device, *run) for run in ((explanation, explain, inputs), (forward, inputs))]
                memory.append(peaks[0] / peaks[1])
        found = {"cost_in_forward_passes": ratios, "memory_in_forward_passes": memory}
        made[name] = {measure: interval(torch.tensor(values), subject.seed) for measure, values in found.items()}
    return made


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def randomisation(subject: Subject, subjects: dict[str, Subject], count: int, parts: list[str]) -> dict:
    """Rank agreement with the explanation of the same model after parts of it, one on top of the other, are made random; low is right."""
    inputs, _ = next(subject.batches(count, size=count))
    made = {}
    for name, explain in subject.explainers.items():
        found = randomisation_sensitivity(subject.model, explain, inputs, parts, seed=subject.seed)
        made[name] = {f"randomised_{part}": {key: found[part][key] for key in ("mean", "low", "high", "n")} for part in parts}
    return made


def seed_stability(subject: Subject, subjects: dict[str, Subject], count: int) -> dict:
    """Rank agreement of the right class's explanations with those of the same model trained with the next seed; nothing for a single seed."""
    made = {}
    for name, explain in subject.explainers.items() if subject.other is not None else ():
        agreements = []
        for (inputs, labels), (same, _) in zip(subject.batches(count), subject.other.batches(count), strict=True):
            maps = [one(**given, targets=labels).contributions[:, 0] for one, given in ((explain, inputs), (subject.other.explainers[name], same))]
            counted = inputs.get("attention_mask")
            agreements.append(rank_agreement(maps, None if counted is None else counted.bool()).cpu())
        made[name] = {"seed_stability": interval(torch.cat(agreements), subject.seed)}
    return made


COMMON = {"completeness": completeness, "cost": cost, "randomisation": randomisation, "seed_stability": seed_stability}
