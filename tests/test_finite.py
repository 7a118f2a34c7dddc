"""NaN and infinity are refused by every metric, in words: none is ever counted, ranked or averaged."""

import pytest
import torch
from conftest import batch_of, tiny
from torch import ones, zeros

from bcos_hf import bcosify
from bcos_hf.metrics import (
    bootstrap_interval,
    compare_predictions,
    energy_pointing_shares,
    grid_pointing_shares,
    insertion_curve,
    lattice_strength,
    linear_probe_accuracy,
    perturbation_drops,
    predicted_logits,
    rank_agreement,
    rationale,
    rationale_agreement,
    reciprocal_ranks,
    relative_residual,
    sample_grids,
    sequence_pointing_shares,
    zero_shot_accuracy,
)
from bcos_hf.metrics.agreement import conversion_kept
from bcos_hf.metrics.bootstrap import measured
from bcos_hf.metrics.rank_agreement import spearman
from bcos_hf.metrics.word_valence import word_valence_interval


ALL, ONE = ones(2, 4).bool(), torch.eye(2, 4).bool()
NUMBERS = torch.arange(2)
# metric -> how it is called with numbers of a shape
METRICS = {
    "bootstrap_interval": ((4,), bootstrap_interval),
    "measured": ((4,), lambda x: measured("metric", ones(4), x)),
    "compare_predictions": ((2, 4), lambda x: compare_predictions(ones(2, 4), x)),
    "of the standard model": ((2, 4), lambda x: compare_predictions(x, ones(2, 4))),
    "energy_pointing_shares": ((2, 4, 4), lambda x: energy_pointing_shares(x, ones(2, 4, 4))),
    "grid_pointing_shares": ((2, 4, 4, 4), grid_pointing_shares),
    "insertion_curve": (
        (2, 4, 4),
        lambda x: insertion_curve(lambda images: ones(len(images), 2), zeros(2, 3, 4, 4), x, NUMBERS, steps=2),
    ),
    "its probabilities": (
        (2, 2),
        lambda x: insertion_curve(lambda images: x, zeros(2, 3, 4, 4), ones(2, 4, 4), NUMBERS * 0, steps=2),
    ),
    "lattice_strength": ((2, 4, 4), lambda x: lattice_strength(x, 2)),
    "linear_probe_accuracy": ((2, 4), lambda x: linear_probe_accuracy((x, NUMBERS), (ones(2, 4), NUMBERS))),
    "zero_shot_accuracy": ((2, 4), lambda x: zero_shot_accuracy(x, ones(3, 4), NUMBERS)),
    "rank_agreement": ((2, 4), lambda x: rank_agreement([x, ones(2, 4)])),
    "spearman": ((4,), lambda x: spearman(x.tolist(), range(4))),
    "word_valence_interval": (
        (4,),
        lambda x: word_valence_interval([list(zip(x.tolist(), range(4), strict=True))], n_resamples=2),
    ),
    "rationale": ((2, 4), lambda x: rationale(x, ALL, 0.5)),
    "rationale_agreement": ((2, 4), lambda x: rationale_agreement(x, ONE, ALL)),
    "reciprocal_ranks": ((2, 4), lambda x: reciprocal_ranks(x, ONE, ALL)),
    "relative_residual": ((2, 4), lambda x: relative_residual(x, zeros(2), ones(2))),
    "of a constant": ((2,), lambda x: relative_residual(ones(2, 4), x, ones(2))),
    "of a logit": ((2,), lambda x: relative_residual(ones(2, 4), zeros(2), x)),
    "sample_grids": ((2,), lambda x: sample_grids(x, NUMBERS, 4, 1)),
    "sequence_pointing_shares": ((2, 2, 4), lambda x: sequence_pointing_shares(x, ALL)),
}


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", sorted(METRICS))
def test_a_metric_refuses(name, value):
    shape, metric = METRICS[name]
    given = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    given.view(-1)[0] = value
    with pytest.raises(ValueError, match=r"expected finite|expected probabilities from 0 to 1"):
        metric(given)


def test_what_does_not_count_may_be_anything():
    given, counted = torch.rand(2, 4), ones(2, 4).bool()
    given[:, 3], counted[:, 3] = torch.nan, False
    right = given.nan_to_num()
    assert torch.equal(reciprocal_ranks(given, ONE, counted), reciprocal_ranks(right, ONE, counted))
    assert torch.equal(rank_agreement([given, right], counted), torch.ones(2, dtype=torch.float64))
    assert torch.equal(rationale(given, counted, 0.5), rationale(right, counted, 0.5))


def test_a_diverged_model_has_no_results():
    for family, take in (
        (
            "bert",
            lambda model, batch: perturbation_drops(model, *batch.values(), torch.rand(3, 9), zeros(3, 9).long(), 4),
        ),
        ("bert", lambda model, batch: conversion_kept(tiny("bert"), model, [(batch, NUMBERS)])),
        ("bert", lambda model, batch: conversion_kept(model, tiny("bert"), [(batch, NUMBERS)])),
        ("vit", lambda model, batch: predicted_logits(model, batch["pixel_values"])),
    ):
        model = bcosify(tiny(family))
        with torch.no_grad():
            model.classifier.weight[0, 0] = torch.nan
        with pytest.raises(ValueError, match="expected finite numbers"):
            take(model, batch_of(family))
