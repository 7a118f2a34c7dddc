"""Running text, and the recipe that trains causal language models on it."""

import json
import math
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from conftest import DECODERS, tiny
from datasets import Dataset, DatasetDict
from test_decoders import tokenizer_of

from bcos_hf.data.running_text import in_blocks, load_running_text
from bcos_hf.training import CausalModelArguments, RunningTextArguments, causal_lm_trainer


RECIPE = Path(__file__).parents[1] / "recipes" / "bcosify_causal_lm.py"


@pytest.mark.parametrize("end", [None, "w2"])
def test_blocks_are_the_texts_one_after_the_other(end):
    texts = ["w3 w4 w5", "", None, "w6", "w7 w8 w9 w3 w4", "w5 w2"]
    rows = DatasetDict({"train": Dataset.from_dict({"text": texts, "label": [0] * 6})})
    made = in_blocks(rows, tokenizer_of(20, **({"eos_token": end} if end else {})), "text", 4)["train"]
    ids = [3, 4, 5, 2, 6, 2, 7, 8, 9, 3, 4, 2] if end else [3, 4, 5, 6, 7, 8, 9, 3]  # a text that ends so gets no second end
    assert [number for row in made["input_ids"] for number in row] == ids and made["labels"] == made["input_ids"]
    assert all(mask == [1, 1, 1, 1] for mask in made["attention_mask"]) and set(made.column_names) == {"input_ids", "attention_mask", "labels"}
    with pytest.raises(ValueError, match="smaller block_size"):
        in_blocks(rows, tokenizer_of(20), "text", 400)


def test_running_text_needs_no_label(tmp_path):
    (tmp_path / "train.txt").write_text("\n".join(f"w{number}" for number in range(100)))
    data, column = load_running_text(None, train_file=tmp_path / "train.txt", max_train_samples=7)
    assert column == "text" and {split: len(rows) for split, rows in data.items()} == {"train": 7, "validation": 1, "test": 1}
    with pytest.raises(ValueError, match="either"):
        load_running_text(None)


@pytest.mark.parametrize("family", sorted(DECODERS))
def test_calibration_refits_on_blocks_and_leaves_the_head_linear(family, tmp_path, own_cache):
    tiny(family, "causal").float().save_pretrained(tmp_path / "standard")
    tokenizer_of(90).save_pretrained(tmp_path / "standard")
    (tmp_path / "texts.txt").write_text("\n".join(" ".join(f"w{5 + (start * step) % 80}" for step in range(16)) for start in range(40)) + "\n")
    model, texts = str(tmp_path / "standard"), str(tmp_path / "texts.txt")
    data = RunningTextArguments(train_file=texts, validation_file=texts, block_size=16)
    training = transformers.TrainingArguments(str(tmp_path / "out"), use_cpu=True, report_to="none")
    trainer, _ = causal_lm_trainer(CausalModelArguments(model_name_or_path=model, b=1.25, calibration_samples=24), data, training)
    report = trainer.model.conversion_report
    assert report.calibration["samples"] == 24 and report.calibration["source"] == texts and trainer.model.config.weight_norm == "none"
    assert report.fits and "lm_head" not in {fit["name"] for fit in report.fits} and trainer.model.lm_head.b == 1
    standard = transformers.AutoModelForCausalLM.from_pretrained(model)
    ids = torch.randint(5, 85, (4, 12), generator=torch.Generator().manual_seed(0))
    plain, _ = causal_lm_trainer(CausalModelArguments(model_name_or_path=model, b=1.25, weight_norm="none"), data, training)
    errors = [(made.eval()(ids).logits - standard.eval()(ids).logits).norm() for made in (trainer.model, plain.model)]
    assert errors[0] < errors[1]
    with pytest.raises(ValueError, match="weight_norm 'unit' with calibration_samples 24"):
        causal_lm_trainer(CausalModelArguments(model_name_or_path=model, weight_norm="unit", calibration_samples=24), data, training)


@pytest.mark.parametrize("family", sorted(DECODERS))
def test_the_recipe_learns_what_comes_next(family, tmp_path, run_recipe):
    """Texts that count: after a few steps the model knows most of what comes next, and its perplexity is near 1."""
    tiny(family, "causal").float().save_pretrained(tmp_path / "standard")
    tokenizer_of(90).save_pretrained(tmp_path / "standard")
    (tmp_path / "texts.txt").write_text("\n".join(" ".join(f"w{5 + (start + step) % 20}" for step in range(16)) for start in range(20)) + "\n")
    settings = dict(
        model_name_or_path="standard", train_file="texts.txt", validation_file="texts.txt", b=1.25, block_size=16, output_dir="trained", do_train=True,
        max_steps=60, learning_rate=0.01, per_device_train_batch_size=10, use_cpu=True, report_to="none", save_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    printed = run_recipe(tmp_path, RECIPE, "recipe.yaml")
    metrics = json.loads((tmp_path / "trained" / "all_results.json").read_text())
    assert f"test perplexity {math.exp(metrics['test_loss']):.3f}" in printed and metrics["test_loss"] < 0.7 and metrics["test_accuracy"] > 0.9
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "trained")
    explanation = model.explain(**transformers.AutoTokenizer.from_pretrained(tmp_path / "trained")("w7 w8 w9", return_tensors="pt"))
    assert explanation.targets.item() == 10 and explanation.relative_residual.item() < 1e-5 and model.config.b == 1.25
