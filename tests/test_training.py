"""The loss, the trainer, its schedule, and the recipe on a tiny model, in one process and launched."""

import json
from pathlib import Path

import pytest
import torch
from conftest import run_python, tiny
from torch.nn import functional as F
from transformers import BertTokenizerFast, TrainingArguments

from bcos_hf import bcosify
from bcos_hf.models.bcos_layers import Bcos
from bcos_hf.training import BcosTrainer, BScheduleCallback, DataArguments, ModelArguments, bce_loss, parse, text_trainer, train_and_test


RECIPE = Path(__file__).parents[1] / "recipes" / "bcosify_text_classification.py"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "##s", "a", "very"]


def test_loss_is_the_formula():
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, -100])
    one_hot = F.one_hot(labels[:3], 3).float()
    slow = -(one_hot * logits[:3].sigmoid().log() + (1 - one_hot) * (1 - logits[:3].sigmoid()).log()).mean()
    torch.testing.assert_close(bce_loss(logits, labels), slow)
    soft = one_hot.clamp_min(1 / 3)
    slow = -(soft * logits[:3].sigmoid().log() + (1 - soft) * (1 - logits[:3].sigmoid()).log()).mean()
    torch.testing.assert_close(bce_loss(logits, labels, "uniform"), slow)


def rows(count):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 90, (count, 6), generator=generator)
    return [{"input_ids": row, "labels": int(row[0]) % 3} for row in ids]


def trained(folder, accumulate=1, size=8, callbacks=(), **fields):
    model = bcosify(tiny("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), **fields).float()
    args = TrainingArguments(
        str(folder), per_device_train_batch_size=size, gradient_accumulation_steps=accumulate, max_steps=4, learning_rate=1e-3, use_cpu=True,
        save_strategy="no", report_to="none", logging_steps=1, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = BcosTrainer(model, args, train_dataset=rows(64), callbacks=list(callbacks))
    trainer.train()
    return trainer


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path):
    whole, parts = trained(tmp_path), trained(tmp_path, accumulate=4, size=2)
    for first, second in zip(whole.state.log_history[:4], parts.state.log_history[:4], strict=True):
        assert float(first["loss"]) == pytest.approx(float(second["loss"]), rel=1e-4)
        assert float(first["grad_norm"]) == pytest.approx(float(second["grad_norm"]), rel=1e-3)


def test_linear_schedule_goes_from_1_to_b(tmp_path):
    seen = []

    class Watch(BScheduleCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            super().on_step_begin(args, state, control, model=model, **kwargs)
            seen.append({round(layer.b, 4) for layer in model.modules() if isinstance(layer, Bcos) and layer.initial_b > 1})

    trainer = trained(tmp_path, callbacks=[Watch("linear", 0.5)], b=1.5)
    assert seen == [{1.0}, {1.25}, {1.5}, {1.5}]
    assert {layer.b for layer in trainer.model.modules() if isinstance(layer, Bcos)} == {1.0, 1.5}
    with pytest.raises(ValueError, match="learnable"):
        trained(tmp_path, callbacks=[BScheduleCallback("learnable")])
    learned = trained(tmp_path, callbacks=[BScheduleCallback("learnable")], learnable_b=True).model.classifier.b
    assert learned.item() != 1.5


def test_model_card_is_not_written_over(tmp_path):
    trainer = trained(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    trainer.create_model_card()
    once = (tmp_path / "README.md").read_text()
    assert "\nmine\n" in once and "A **B-cos** network" in once  # ours beside theirs
    trainer.create_model_card()
    assert (tmp_path / "README.md").read_text() == once


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder / "model")
    tiny("bert", num_labels=2).float().base_model.save_pretrained(folder / "model")
    lines = [f"a very {word} film,{label}" for word, label in (("good", "pos"), ("bad", "neg"))] * 16
    (folder / "train.csv").write_text("\n".join(["text,label", *lines]))
    (folder / "config.yaml").write_text(
        "model_name_or_path: model\ntrain_file: train.csv\nvalidation_file: train.csv\noutput_dir: out\ndo_train: true\nmax_steps: 4\n"
        "per_device_train_batch_size: 4\nlearning_rate: 1.0e-3\nuse_cpu: true\nsave_steps: 2\nsave_strategy: steps\nreport_to: none\nmax_length: 16\n"
    )
    return folder


def test_recipe_trains_resumes_and_compares(workspace, run_recipe):
    run_recipe(workspace, RECIPE, "config.yaml", "--output_dir", "one", "--explain_samples", "2", "--eval_strategy", "steps", "--eval_steps", "2")
    assert (workspace / "one" / "explanations" / "step-2.html").exists()
    assert "auto_map" in json.loads((workspace / "one" / "config.json").read_text())
    run_recipe(workspace, RECIPE, "config.yaml", "--output_dir", "one", "--max_steps", "6")
    assert json.loads((workspace / "one" / "trainer_state.json").read_text())["global_step"] == 6
    assert "saved to plain" in run_recipe(workspace, RECIPE, "config.yaml", "--output_dir", "plain", "--conventional", "true")
    assert json.loads((workspace / "plain" / "config.json").read_text())["model_type"] == "bert"


def made(*given):
    return text_trainer(*parse(["config.yaml", *map(str, given)], ModelArguments, DataArguments, TrainingArguments))


@pytest.fixture
def here(workspace, own_cache, monkeypatch):
    monkeypatch.chdir(workspace)
    return workspace


def test_calibration_refits_the_model_that_is_trained(here):
    trainer, _ = made("--calibration_samples", 20)
    report = trainer.model.conversion_report
    assert trainer.model.config.weight_norm == "none" and report.calibration["samples"] == 20 and report.calibration["source"] == "train.csv"
    assert report.fits and not {fit["name"] for fit in report.fits} & {"classifier"}
    plain, _ = made()
    assert plain.model.config.weight_norm == "unit" and plain.model.conversion_report.calibration is None
    assert torch.equal(trainer.model.classifier.weight, plain.model.classifier.weight)  # random, and the same
    again, _ = made("--calibration_samples", 20)
    assert all(torch.equal(value, again.model.state_dict()[name]) for name, value in trainer.model.state_dict().items())
    conventional, _ = made("--calibration_samples", 20, "--conventional", "true", "--weight_norm", "unit")
    assert type(conventional.model).__name__ == "BertForSequenceClassification"


def test_settings_that_do_not_go_with_a_refit_say_so(here):
    for given, message in (
        (["--weight_norm", "unit"], "weight_norm 'unit' with calibration_samples 20"),
        (["--b_schedule", "linear"], "b_schedule 'linear' with calibration_samples 20"),
        (["--calibration_samples", "-1"], "calibration_samples: expected 0"),
    ):
        with pytest.raises(ValueError, match=message):
            made("--calibration_samples", 20, *given)


@pytest.mark.parametrize("kind", ["bcos", "conventional"])
def test_the_head_is_trained_first(kind, here):
    given = ["--conventional", str(kind == "conventional").lower(), "--calibration_samples", 20]
    plain, first = made(*given)[0].model, made(*given, "--head_first_steps", 40)[0].model
    before, after = plain.state_dict(), first.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed and changed <= {"classifier.weight", "classifier.bias"}
    batch = {"input_ids": torch.tensor([[2, 9, 10, 5, 7, 3], [2, 9, 10, 6, 7, 3]])}
    losses = [bce_loss(model.eval()(**batch).logits, torch.tensor([1, 0])).item() for model in (plain, first)]
    assert losses[1] < losses[0]


def test_a_fine_tuned_classifier_teaches_its_own_twin(here):
    trainer, tokens = made("--conventional", "true", "--output_dir", "taught")
    train_and_test(trainer, tokens)
    made("--model_name_or_path", "taught", "--distillation_weight", 1)[0].train()
    with pytest.raises(ValueError, match="model has weights that are new and random"):
        made("--distillation_weight", 1)
    named, _ = made("--distillation_weight", 1, "--distillation_teacher", "taught")
    assert named.output_teacher.weight == 1 and named.output_teacher.teacher.config.num_labels == 2


def test_recipe_under_two_processes(workspace):
    run_python(workspace, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(RECIPE), "config.yaml", "--output_dir", "two")
    assert (workspace / "two" / "model.safetensors").exists()


def test_recipe_refuses_unknown_settings(workspace):
    (workspace / "typo.yaml").write_text("learning_rat: 1\n")
    with pytest.raises(ValueError, match="learning_rat"):
        parse([str(workspace / "typo.yaml")], ModelArguments)
