"""The trainer's loss: what Trainer, its arguments, the configuration and the labels ask for, or a refusal in words."""

import inspect

import pytest
import torch
from conftest import EMBEDDERS, MEMBERS, batch_of, tiny
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, TrainingArguments

from bcos_hf import bcosify
from bcos_hf.data.augmentation import mixup
from bcos_hf.training import BcosTrainer, BScheduleCallback, DistillationTrainer, OutputTeacher, bce_loss, bcos_loss


IDS = batch_of("bert")["input_ids"]


def trainer_of(folder, labels=3, head=None, model_fields=None, given=None, **options):
    model = bcosify(tiny("bert", head, num_labels=labels, **(model_fields or {})).float())
    return BcosTrainer(
        model.eval(), TrainingArguments(str(folder), report_to="none", use_cpu=True, **(given or {})), **options
    )


def loss_of(trainer, labels):
    return trainer.compute_loss(trainer.model, {"input_ids": IDS, "labels": labels}), trainer.model(
        input_ids=IDS
    ).logits


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_one_output_is_a_regression(shape, tmp_path):
    scores = torch.tensor([0.1, 0.9, -3.5])
    loss, logits = loss_of(trainer_of(tmp_path, 1), scores.view(shape))
    torch.testing.assert_close(loss, ((logits[:, 0] - scores) ** 2).mean())
    loss, logits = loss_of(trainer_of(tmp_path, 3, model_fields={"problem_type": "regression"}), scores.expand(3, 3))
    torch.testing.assert_close(loss, ((logits - scores) ** 2).mean())


@pytest.mark.parametrize("dtype", [torch.long, torch.int32, torch.float32, torch.bool])
@pytest.mark.parametrize("problem", [None, "multi_label_classification"])
def test_several_classes_at_once(dtype, problem, tmp_path):
    hot = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1]])
    loss, logits = loss_of(trainer_of(tmp_path, model_fields={"problem_type": problem}), hot.to(dtype))
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, hot.float()))


@given(st.floats(0, 1), st.integers(2, 5))
def test_smoothed_labels_are_the_formula(smoothing, classes):
    logits, labels = torch.linspace(-2, 2, 3 * classes).view(3, classes), torch.tensor([0, 1, -100])
    target = (1 - smoothing) * F.one_hot(labels[:2], classes) + smoothing / classes
    expected = F.binary_cross_entropy_with_logits(logits[:2], target)
    torch.testing.assert_close(bcos_loss(logits, labels, smoothing=smoothing), expected)
    assert smoothing or torch.equal(bcos_loss(logits, labels), bce_loss(logits, labels))


def test_label_smoothing_of_the_arguments_is_used(tmp_path):
    labels = torch.tensor([0, 2, 1])
    loss, logits = loss_of(trainer_of(tmp_path, given={"label_smoothing_factor": 0.3}), labels)
    torch.testing.assert_close(loss, bce_loss(logits, labels, smoothing=0.3))
    causal = bcosify(tiny("gpt2", "causal").float())
    smooth = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, label_smoothing_factor=0.3)
    trainer = BcosTrainer(causal, smooth, off_labels=None)
    logits = causal(input_ids=IDS).logits[:, :-1]
    expected = F.cross_entropy(logits.flatten(0, 1), IDS[:, 1:].flatten(), label_smoothing=0.3)
    torch.testing.assert_close(trainer.compute_loss(causal, {"input_ids": IDS, "labels": IDS}), expected)


def test_the_next_token_is_what_a_decoder_learns(tmp_path):
    causal = bcosify(tiny("gpt2", "causal").float())
    trainer = BcosTrainer(causal, TrainingArguments(str(tmp_path), report_to="none", use_cpu=True))
    expected = bce_loss(causal(input_ids=IDS).logits[:, :-1], IDS[:, 1:])
    torch.testing.assert_close(trainer.compute_loss(causal, {"input_ids": IDS, "labels": IDS}), expected)


def test_a_function_of_ones_own_is_the_loss(tmp_path):
    weight, labels = torch.tensor([1.0, 5.0, 1.0]), torch.tensor([0, 2, 1])

    def weighted(outputs, labels, num_items_in_batch=None):
        return F.cross_entropy(outputs["logits"], labels, weight=weight)

    loss, logits = loss_of(trainer_of(tmp_path, compute_loss_func=weighted), labels)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels, weight=weight))
    with pytest.raises(ValueError, match=r"label_smoothing_factor 0.3"):
        trainer_of(tmp_path, compute_loss_func=weighted, given={"label_smoothing_factor": 0.3})
    with pytest.raises(ValueError, match="a teacher"):
        trainer_of(tmp_path, compute_loss_func=weighted, teacher=OutputTeacher(tiny("bert").float()))
    with pytest.raises(ValueError, match="compute_loss_func"):
        DistillationTrainer(
            tiny("vit"), TrainingArguments(str(tmp_path), use_cpu=True), compute_loss_func=weighted, teacher=tiny("vit")
        )


REFUSED = [
    ({}, {}, torch.tensor([0.1, 0.9, 0.4]), "whole numbers"),
    ({"num_labels": 1}, {}, torch.tensor([0.1, float("nan"), 0.4]), "finite"),
    ({"problem_type": "regression"}, {}, torch.tensor([0.1, 0.9, 0.4]), "one for each output of a regression"),
    ({"problem_type": "multi_label_classification"}, {}, torch.tensor([0, 1, 2]), "a 0 or 1 for each class"),
    ({"problem_type": "single_label_classification"}, {}, torch.ones(3, 3, dtype=torch.long), "class numbers"),
    ({}, {}, torch.full((3, 3), 2), "from 0 to 1"),
    ({}, {"off_labels": "uniform"}, torch.ones(3, 3, dtype=torch.long), "off_labels 'uniform'"),
    ({"num_labels": 1}, {"smoothing": 0.1}, torch.tensor([0.1, 0.9, 0.4]), "label_smoothing_factor 0.1"),
    ({"problem_type": "ranking"}, {}, torch.tensor([0, 1, 2]), "problem_type"),
]


@pytest.mark.parametrize("fields, options, labels, message", REFUSED)
def test_no_loss_is_made_of_labels_that_it_cannot_take(fields, options, labels, message):
    logits = torch.zeros(3, fields.get("num_labels", 3))
    with pytest.raises(ValueError, match=message):
        bcos_loss(logits, labels, problem_type=fields.get("problem_type"), **options)


def test_other_losses_are_refused_in_words(tmp_path):
    trainer = trainer_of(tmp_path)
    with pytest.raises(ValueError, match="'labels' in the batch"):
        trainer.compute_loss(trainer.model, {"input_ids": IDS})
    trainer.model.loss_function = F.cross_entropy
    with pytest.raises(ValueError, match="loss_function"):
        BcosTrainer(trainer.model, trainer.args)
    base = BcosTrainer(bcosify(tiny("bert").base_model.float()), trainer.args)
    with pytest.raises(ValueError, match="a model with logits"):
        base.compute_loss(base.model, {"input_ids": IDS, "labels": torch.tensor([0, 1, 2])})
    with pytest.raises(ValueError, match="class numbers"):
        mixup(torch.zeros(2, 3), torch.tensor([0.3, 0.7]), 3)


def test_forward_takes_what_the_standard_forward_takes():
    models = [tiny(family, head) for family, head in MEMBERS]
    models += [AutoModel.from_config(AutoConfig.for_model(family, **sizes)) for family, sizes in EMBEDDERS.items()]
    for model in models:
        theirs, ours = (inspect.signature(one.forward).parameters for one in (model, bcosify(model)))
        assert set(theirs) <= set(ours), type(model)
        order = [name for name in ours if name in theirs]
        assert order == list(theirs), type(model)


@pytest.mark.parametrize("b", [2.0, [1.5, 2.0, 2.5]])
def test_a_checkpoint_has_the_b_that_it_was_measured_with(b, tmp_path):
    model = bcosify(tiny("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), b=b).float()
    rows = [{"input_ids": IDS[0], "labels": i % 3} for i in range(8)]
    often = {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1,
        "load_best_model_at_end": True,
    }
    args = TrainingArguments(
        str(tmp_path),
        max_steps=4,
        learning_rate=0.1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        metric_for_best_model="loss",
        **often,
    )
    trainer = BcosTrainer(
        model, args, train_dataset=rows, eval_dataset=rows, callbacks=[BScheduleCallback("linear", 1.0)]
    )
    trainer.train()
    measured = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    for step, loss in enumerate(measured, 1):
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / f"checkpoint-{step}")
        assert BcosTrainer(loaded, args, eval_dataset=rows).evaluate()["eval_loss"] == pytest.approx(loss, rel=1e-5)
    best = trainer.state.best_model_checkpoint
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(measured), rel=1e-5)
    assert trainer.model.config.b == AutoConfig.from_pretrained(best).b
