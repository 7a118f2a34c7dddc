"""The authors' B-cos language models, from golden data: conversion, logits, explanations, training; encoders and decoders."""

import json
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file

from bcos_hf.checkpoints import from_bcos_lm
from bcos_hf.metrics import area_under_curve, perturbation_drops
from bcos_hf.models import FAMILIES
from bcos_hf.models.bcos_activations import FACTORS, GATES
from bcos_hf.training import bce_loss


def standard_model(golden):
    """The standard model of an lm_ fixture, and its state."""
    origin = golden
    if "standard_state_file" in golden.settings:
        origin = golden.other(golden.settings["standard_state_file"])
    config = {**golden.settings["config"]}
    known = set(transformers.AutoConfig.for_model(config["model_type"]).to_dict()) - {"architectures", "transformers_version", "dtype"}
    known |= {"rope_theta", "rope_scaling"} & set(config)  # by their old names
    config = transformers.AutoConfig.for_model(config["model_type"], **{name: value for name, value in config.items() if name in known - {"model_type"}})
    model = getattr(transformers, golden.settings["config"]["architectures"][0])(config).eval()
    state = origin.under("standard/")
    missing = model.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    absent = {"lm_head.weight"} & set(missing.missing_keys) if config.tie_word_embeddings or not_copied(golden) else set()
    absent |= c_attn_biases(golden)
    assert not [key for key in missing.missing_keys if "position_ids" not in key and "pooler" not in key and key not in absent], missing.missing_keys
    if "lm_head.weight" in absent:
        state["lm_head.weight"] = model.lm_head.weight.detach().clone()
    return model, state


def c_attn_biases(golden) -> set[str]:
    """Biases that GPT-2's fixture leaves out, so that the standard model's logits cannot be made again; B-cos models drop them."""
    return {name for name in golden.settings["standard_parameters_dropped"] if name.endswith("c_attn.bias") and f"standard/{name}" not in golden.tensors}


def not_copied(golden) -> dict:
    """Parameters of the reference that no standard parameter goes to, its B-cos LM head: name -> tensor."""
    origins = golden.settings.get("name_map_bcos_to_standard", {})
    return {theirs: golden.get(f"converted/{theirs}") for theirs, origin in origins.items() if origin.startswith("NOT COPIED")}


def bcos_model(golden):
    model, state = standard_model(golden)
    settings = golden.settings["bcos_config"]
    b = [*settings["b_list"], settings["b"]] if settings.get("different_b_per_layer") else settings["b"]
    family = FAMILIES[model.config.model_type]
    fields, own = {"convert_lm_head": True} if settings.get("bcos_lm_head") else {}, not_copied(golden)
    fields |= {"tie_word_embeddings": False} if own else {}
    bcos = getattr(family, f"Bcos{type(model).__name__}").from_standard(model, b=b, **fields)
    left = bcos.load_state_dict({theirs.replace(".linear.", "."): value for theirs, value in own.items()}, strict=False)
    assert not left.unexpected_keys
    return bcos, model, state


def saved_by_reference(golden, state: dict, folder: Path) -> Path:
    """The folder that the reference's `save_pretrained` leaves, its configuration with the fields that its training adds."""
    (folder / "config.json").write_text(json.dumps(golden.settings["config"] | golden.settings["bcos_config"]))
    own = not_copied(golden)
    tensors = {theirs: own[theirs] if theirs in own else state[standard] for theirs, standard in golden.settings["name_map_bcos_to_standard"].items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def encoder(golden) -> None:
    bcos, model, state = bcos_model(golden)
    settings, inputs = golden.settings, {name: golden.get(f"input/{name}") for name in ("input_ids", "attention_mask")}
    if "standard_output/logits" in golden.tensors:
        golden.meets("standard_output/logits", model(**inputs).logits)
    assert sorted(bcos.conversion_report.dropped) == sorted(name for name in settings["standard_parameters_dropped"])
    ours = bcos.state_dict()
    for theirs, standard in settings.get("name_map_bcos_to_standard", {}).items():
        assert torch.equal(ours[theirs.replace(".linear.", ".")], state[standard])
    golden.meets("output/logits", bcos(**inputs).logits)
    with tempfile.TemporaryDirectory() as folder:
        golden.meets("output/logits", from_bcos_lm(saved_by_reference(golden, state, Path(folder)))(**inputs).logits)
    golden.meets("output/embeddings", bcos.base_model.embeddings(inputs["input_ids"]))
    for index, targets in enumerate(settings["targets"]):
        explanation = bcos.explain(**inputs, targets=targets)
        contributions = explanation.contributions[:, 0]
        golden.meets(f"expl/grad_{index}", explanation.weights[:, 0])
        golden.meets(f"expl/contrib_{index}", contributions, gradient=True)
        golden.meets(f"expl/ixg_mean_{index}", contributions / explanation.weights.shape[-1], gradient=True)
        relative = bcos.explain(**inputs, targets=targets, contrast="mean")
        golden.meets(f"expl/rel_contrib_{index}", relative.contributions[:, 0], gradient=True)
        assert (contributions[inputs["attention_mask"] == 0] == 0).all()
    loss = bce_loss(bcos(**inputs).logits, torch.tensor(settings["train"]["labels"]))
    golden.meets("train/loss", loss)
    loss.backward()
    grads = {name: parameter.grad for name, parameter in bcos.named_parameters()}
    for key in [key for key in golden.tensors if key.startswith("train/grad/")]:
        golden.meets(key, grads[key.removeprefix("train/grad/").replace(".linear.", ".")])


def decoder(golden) -> None:
    bcos, model, state = bcos_model(golden)
    own = {"lm_head.weight"} if not_copied(golden) else set()  # the standard head, whose place another one takes
    assert set(bcos.conversion_report.dropped) - own == set(golden.settings["standard_parameters_dropped"]) - own
    with tempfile.TemporaryDirectory() as folder:
        loaded = from_bcos_lm(saved_by_reference(golden, state, Path(folder)))
    for name, targets in golden.settings["targets"].items():
        inputs = {key: golden.get(f"{name}/{key}") for key in ("input_ids", "attention_mask")}
        inputs["position_ids"] = torch.arange(inputs["input_ids"].shape[1]).expand_as(inputs["input_ids"])  # as the reference counts, paddings too
        real = inputs["attention_mask"].bool()
        for key, network in (("standard_logits", model), ("logits", bcos), ("logits", loaded)):
            reference = golden.get(f"{name}/{key}")
            if network is model and (c_attn_biases(golden) or "lm_head.weight" not in state):
                continue
            logits = network(**inputs).logits
            golden.meets(f"{name}/{key}", torch.where(real[..., None], logits, reference))  # what a padding token is followed by means nothing
        word = bcos.get_input_embeddings()(inputs["input_ids"])
        with products(bcos):
            for index, target in enumerate(targets):
                explanation = bcos.explain(**inputs, targets=target)
                golden.meets(f"{name}/expl/grad_{index}", explanation.weights[:, 0])
                golden.meets(f"{name}/expl/contrib_{index}", (explanation.weights[:, 0] * word).sum(-1), gradient=True)
            if f"{name}/expl/contrast" in golden.tensors:
                weights = bcos.explain(**inputs, targets=targets[0], contrast=targets[1]).weights[:, 0]
                golden.meets(f"{name}/expl/contrast", (weights * word).sum(-1), gradient=True)
        assert bcos.explain(**inputs, targets=targets[0]).relative_residual.max() < 1e-5


@contextmanager
def products(bcos):
    """The reference's gated MLPs, act(gate) * up: both factors have gradients there, so that contributions are not complete."""
    whole = [module for module in bcos.modules() if type(module) in FACTORS.values()]
    gates = {factor: GATES[plain] for plain, factor in FACTORS.items()}
    for module in whole:
        module.__class__ = gates[type(module)]
    yield
    for module in whole:
        module.__class__ = FACTORS[next(plain for plain, gate in GATES.items() if gate is type(module))]


def perturbation(golden) -> None:
    stem = re.search(r"lm_\w+", golden.settings["model"])[0]
    origin = golden.other(stem)
    bcos, _, _ = bcos_model(origin)
    ids, mask = origin.get("input/input_ids"), origin.get("input/attention_mask")
    lengths, positions = mask.sum(1), torch.arange(ids.shape[1])
    special = ((positions == 0) | (positions == lengths[:, None] - 1)).long()
    for name, case in golden.settings["cases"].items():
        scores, given = torch.zeros(ids.shape), golden.get(f"{name}/attributions")
        first = 0 if case["includes_cls_sep"] else 1
        for row, length in enumerate(case["attribution_lengths"]):
            scores[row, first : first + length] = given[row, :length]
        predicted = golden.get(f"{name}/predicted")
        probabilities = bcos(ids, mask).logits.softmax(-1)
        assert torch.equal(probabilities.argmax(-1), predicted)
        golden.meets(f"{name}/orig_probs", probabilities.gather(1, predicted[:, None])[:, 0])
        fractions = case["percentages"]
        made = perturbation_drops(bcos, ids, mask, scores, special, case["mask_token_id"], fractions, predicted, mask_special_tokens=True)
        for index, fraction in enumerate(fractions):
            assert torch.equal(made["rationales"][:, index], golden.get(f"{name}/rationale_mask/{fraction}").bool())
            for measure in ("comprehensiveness", "sufficiency"):  # differences of probabilities: their rounding is that of numbers up to 1
                torch.testing.assert_close(made[measure][:, index], golden.get(f"{name}/{measure}/{fraction}"), atol=1e-5, rtol=0)
        for measure in ("comprehensiveness", "sufficiency"):
            area = area_under_curve(made[measure].mean(0).tolist(), fractions)
            assert area == pytest.approx(case[f"{measure}_auc"], abs=1e-5)
