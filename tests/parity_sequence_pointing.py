"""The authors' sequence pointing game and evidence ranks, from golden data: the share of each map, which pairs are drawn, the best rank and its chance."""

import re

import pytest
import torch

from bcos_hf.metrics.evidence_rank import expected_reciprocal_ranks, reciprocal_ranks
from bcos_hf.metrics.sequence_pairs import sample_pairs
from bcos_hf.metrics.sequence_pointing_game import sequence_pointing_shares


SPECIAL = re.compile(r"\[(PAD|CLS|SEP)\]|<(pad|/?s|\|endoftext\|)>")


def sequence_pointing(golden) -> None:
    shares(golden)
    sampling(golden.settings["sampling"])
    for case in golden.settings["decoder_mrr"]["cases"]:
        scores = torch.tensor([case["attribution"]], dtype=torch.float64)
        evidence, counted = torch.zeros_like(scores, dtype=torch.bool), torch.ones_like(scores, dtype=torch.bool)
        evidence[0, case["evidence_ids"]] = True
        assert reciprocal_ranks(scores, evidence, counted).item() == pytest.approx(case["mrr"])
        assert expected_reciprocal_ranks(counted, evidence).item() == pytest.approx(case["random_mrr"])


def shares(golden) -> None:
    settings, made = golden.settings, []
    for index, maps in enumerate(settings["explanations"]):
        assert [explanation["target_class"] for explanation in maps] == [labels[index] for labels in settings["labels"]]
        contributions = torch.tensor([explanation["attribution"] for explanation in maps], dtype=torch.float64)
        counted = torch.tensor([not SPECIAL.fullmatch(token) for token in maps[0]["tokens"]])
        assert counted.sum().item() - 2 * settings["max_length"] in (-4, -5)
        made.append(sequence_pointing_shares(contributions[None], counted[None])[0])
    made, result = torch.stack(made), settings["result"]
    for key, ours in (("per_label", made), ("per_instance", made.mean(1)), ("average", made.mean())):
        golden.meets(f"result/{key}", ours)
        torch.testing.assert_close(ours, torch.tensor(result[key], dtype=torch.float64), atol=1e-9, rtol=0)


def sampling(settings: dict) -> None:
    texts = {int(label): list(zip(rows["texts"], rows["confidences"], strict=True)) for label, rows in settings["sorted_output"].items()}
    pairs, wanted = sample_pairs(texts, seed=settings["random_seed"]), settings["result"]
    assert len(pairs) == len(wanted["index"])
    for field, name in (("texts", "text"), ("labels", "label"), ("confidences", "confidence")):
        for side in (0, 1):
            assert [getattr(pair, field)[side] for pair in pairs] == wanted[f"{name}{side + 1}"]
