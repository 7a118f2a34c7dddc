"""A saved model is loaded with all its tensors or not at all; parts that were asked for and that it does not have are named."""

from pathlib import Path

import pytest
import torch
import transformers
from conftest import EMBEDDERS, HEADS, tiny
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from bcos_hf import bcosify
from bcos_hf.hub.card import card_metadata, plain_metrics, results_block
from bcos_hf.models import load_saved


def check_all_or_nothing(model, auto, folder):
    model.save_pretrained(folder)
    file = Path(folder, "model.safetensors")
    whole = load_file(file)
    name = sorted(whole)[len(whole) // 2]
    left = {other: value for other, value in whole.items() if other != name}
    assert type(auto.from_pretrained(folder)) is type(model)
    save_file(left | {f"{name}_": whole[name]}, file, {"format": "pt"})
    with pytest.raises(OSError, match=f"1 missing \\({name}\\) and 1 unexpected \\({name}_\\)"):
        auto.from_pretrained(folder)


def test_classifiers_are_loaded_whole_or_not_at_all(member, tmp_path):
    check_all_or_nothing(bcosify(tiny(*member)).float(), getattr(transformers, HEADS[member[1]]), tmp_path)


@pytest.mark.parametrize("family", ["bert", "vit"])
def test_all_that_is_missing_is_counted(family, tmp_path):
    bcosify(tiny(family)).float().save_pretrained(tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    save_file(dict([whole.popitem()]), tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(OSError, match=f"got {len(whole)} missing \\("):
        load_saved(tmp_path)


@pytest.mark.parametrize("family", sorted(EMBEDDERS))
def test_embedders_are_loaded_whole_or_not_at_all(family, tmp_path):
    standard = AutoModel.from_config(AutoConfig.for_model(family, **EMBEDDERS[family]))
    check_all_or_nothing(bcosify(standard), AutoModel, tmp_path)


def test_a_new_head_is_possible_and_said(text_family, tmp_path, caplog):
    model = bcosify(tiny(text_family)).float()
    model.base_model.save_pretrained(tmp_path / "base")
    made = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=5)
    heads = [f"{name}.weight" for name in made.roles.logits if f"{name}.weight" in made.state_dict()]
    assert heads and all(name in caplog.text for name in heads) and made.num_labels == 5
    caplog.clear()
    model.save_pretrained(tmp_path / "head")
    made = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "head", num_labels=5, ignore_mismatched_sizes=True
    )
    assert (
        "1 tensors are new" in caplog.text
        and caplog.text.rstrip().endswith(f"to be trained: {heads[-1]}.")
        and made.num_labels == 5
    )
    with pytest.raises(RuntimeError):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "head", num_labels=5)
    for value, other in zip(made.base_model.parameters(), model.base_model.parameters(), strict=True):
        assert torch.equal(value, other)


def test_part_of_a_head_is_no_new_head(tmp_path):
    model = bcosify(tiny("roberta")).float()
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file(
        {name: value for name, value in load_file(file).items() if not name.startswith("classifier")},
        file,
        {"format": "pt"},
    )
    with pytest.raises(OSError, match=r"classifier.dense.weight, classifier.out_proj.weight"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path)  # which has no head to be lost


def test_metrics_of_any_shape_end_in_a_card():
    metrics = {
        "accuracy": 0.5,
        "LOC": {"f1": 0.25, "number": 3},
        "deep": {"a": {"b": [1, None]}},
        "f1": [0.1, torch.tensor(0.2), None],
        "auc": None,
        "loss": torch.tensor(0.75),
        "nothing": float("nan"),
        "report": "a text",
        "interval": {"mean": 0.5, "low": 0.4, "high": 0.6},
        "half": {"mean": 0.5, "low": None, "high": 0.6},
        "confusion": torch.eye(2).numpy(),
    }
    names = {"accuracy", "LOC_f1", "LOC_number", "deep_a_b_0", "f1_0", "f1_1", "loss", "interval", "half"}
    names |= {f"confusion_{i}_{j}" for i in (0, 1) for j in (0, 1)}
    assert plain_metrics(metrics).keys() == names
    assert "| LOC f1 | 0.25 |" in results_block(metrics) and "| interval | 0.5 (0.4 to 0.6) |" in results_block(metrics)
    made = card_metadata(bcosify(tiny("bert")), "a/b", metrics, license="mit")
    assert set(made["metrics"]) == names and "model-index" in made
    assert "model-index" not in card_metadata(bcosify(tiny("bert")), "a/b", {"auc": None}, license="mit")
