"""Model randomisation: an explanation that stays as it is when what the model learnt is destroyed does not explain the model.

Parts are made random one after the other, usually from the head down; reported is the rank agreement with the explanation of the whole model, range [-1, 1],
chance 0, lower is better. Source: Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018 (arXiv 1810.03292) section 3.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import datasets
import evaluate
import torch
from torch import Tensor, nn

from bcos_hf.metrics.bootstrap import bootstrap_interval, measured
from bcos_hf.metrics.random_scores import random_scores
from bcos_hf.metrics.rank_agreement import rank_agreement


@contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """Puts every parameter and buffer back to its value, bit by bit, also after an error."""
    before = {name: tensor.detach().clone() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in (*model.named_parameters(), *model.named_buffers()):
                tensor.copy_(before[name])


@torch.no_grad()
def randomise_(module: nn.Module, generator: torch.Generator) -> None:
    """Every parameter becomes independent normal numbers of its own mean and deviation, so that the scale of the activations stays about the same."""
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator).to(parameter)
        deviation = parameter.std() if parameter.numel() > 1 else parameter.abs()
        parameter.copy_(parameter.mean() + noise * deviation)


def randomisation_sensitivity(model: nn.Module, explain: Callable, inputs: dict[str, Tensor], parts: list[str], cascading: bool = True, seed: int = 0) -> dict:
    """Rank agreement of explanations before and after parts of the model are made random; the model is left as it was.

    Args:
        model: in evaluation mode. explain: a callable like `model.explain`, of this model. inputs: of N inputs.
        parts: names of modules, in order. cascading: each on top of the ones before it, or on its own.

    Returns:
        part -> {"mean", "low", "high", "n", "seed"} over inputs, all for the targets of the whole model; "random" is the agreement with random scores.

    Raises:
        ValueError: a module that does not exist, or has no parameters.
    """
    modules = dict(model.named_modules())
    empty = [part for part in parts if part not in modules or not any(True for _ in modules[part].parameters())]
    if empty or not parts:
        raise ValueError(f"parts: expected names of modules with parameters, such as {[name for name, _ in model.named_children()]}, got {empty or parts}.")
    whole = explain(**inputs)
    counted = inputs.get("attention_mask")
    counted = None if counted is None else counted.bool()
    # another stream than set_seed(seed) gives: the first numbers of that are a new head's weights, which training hardly moves
    generator, made = torch.Generator().manual_seed(random.Random(f"randomisation {seed}").getrandbits(32)), {}

    def agreement(contributions: Tensor) -> dict:
        rows = [rank_agreement([whole.contributions[:, k], contributions[:, k]], counted) for k in range(contributions.shape[1])]
        return {**bootstrap_interval(torch.stack(rows).mean(0), seed=seed), "n": len(contributions), "seed": seed}

    with as_it_was(model):
        for part in parts:
            with nullcontext() if cascading else as_it_was(modules[part]):
                randomise_(modules[part], generator)
                made[part] = agreement(explain(**inputs, targets=whole.targets).contributions)
    return {**made, "random": agreement(random_scores(whole.contributions, seed))}


class Randomisation(evaluate.Metric):
    """`compute(predictions=contributions [N, L], references=contributions of the randomised model [N, L])`: mean rho with its 95 % interval."""

    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018.",
            inputs_description="predictions: an explanation's L parts; references: those for the same class after parts of the model were made random.",
            features=datasets.Features(dict.fromkeys(("predictions", "references"), datasets.Sequence(datasets.Value("float64")))),
        )

    def _compute(self, predictions, references, seed=0):
        noise = torch.Generator().manual_seed(seed)
        whole, randomised = ([torch.tensor(row, dtype=torch.float64)[None] for row in rows] for rows in (predictions, references))
        scores = [random_scores(row, noise) for row in whole]
        ours, random = (torch.cat([rank_agreement(list(pair)) for pair in zip(whole, others, strict=True)]) for others in (randomised, scores))
        return measured("randomisation", ours, random, seed)
