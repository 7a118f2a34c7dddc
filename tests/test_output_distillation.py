"""Distillation of the output: the formula, the teacher's images, and what the trainer makes of it."""

import math

import pytest
import torch
from conftest import tiny
from test_training import rows
from transformers import TrainingArguments, ViTImageProcessorPil

from bcos_hf import bcosify
from bcos_hf.training import BcosTrainer, OutputTeacher, bce_loss, between_processors, check_teacher, output_divergence


def test_the_divergence_is_the_formula():
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    slow = 0.0
    for i in range(4):
        p, q = (torch.tensor([math.exp(value / 3) for value in logits[i].tolist()]) for logits in (teacher, student))
        p, q = p / p.sum(), q / q.sum()
        slow += 9 * sum(p[k] * math.log(p[k] / q[k]) for k in range(3)) / 4
    torch.testing.assert_close(output_divergence(student, teacher, 3.0), slow)
    assert output_divergence(teacher, teacher).abs() < 1e-6 and output_divergence(teacher + 5, teacher).abs() < 1e-5
    assert output_divergence(student[:0], teacher[:0]) == 0


def trainer(folder, teacher=None, **fields):
    args = TrainingArguments(
        str(folder), per_device_train_batch_size=8, max_steps=4, learning_rate=1e-3, use_cpu=True, save_strategy="no", report_to="none", logging_steps=1,
        disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    model = bcosify(tiny("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), **fields).float()
    return BcosTrainer(model, args, train_dataset=rows(64), eval_dataset=rows(16), teacher=teacher)


def test_the_trainer_adds_it_in_training_alone(tmp_path):
    teacher = OutputTeacher(tiny("bert").float(), weight=0.7, temperature=2.0)
    made, plain = trainer(tmp_path, teacher), trainer(tmp_path)
    batch = next(iter(made.get_train_dataloader()))
    logits, labels = made.model.train()(batch["input_ids"]).logits, batch["labels"]
    expected = bce_loss(logits, labels) + 0.7 * output_divergence(logits, teacher.teacher(batch["input_ids"]).logits, 2.0)
    torch.testing.assert_close(made.compute_loss(made.model, dict(batch)), expected)
    made.model.eval()
    torch.testing.assert_close(made.compute_loss(made.model, dict(batch)), bce_loss(logits, labels))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    made.train()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items()) and not teacher.teacher.training
    assert {name for name, _ in made.model.named_parameters()} == {name for name, _ in plain.model.named_parameters()}
    left_out = torch.where(torch.arange(8) < 3, -100, labels)
    counted = teacher({"input_ids": batch["input_ids"][3:]}, logits[3:], labels[3:])
    torch.testing.assert_close(teacher({"input_ids": batch["input_ids"]}, logits, left_out), counted)


def test_a_student_learns_what_its_teacher_says(tmp_path):
    """Towards the teacher's logits, without labels that say anything."""
    teacher = OutputTeacher(tiny("bert").float(), weight=20.0)
    made = trainer(tmp_path, teacher)
    losses = []
    for _ in range(2):
        batch = {"input_ids": torch.stack([row["input_ids"] for row in rows(64)])}
        losses.append(output_divergence(made.model.eval()(**batch).logits, teacher.logits(batch)).item())
        made.train() if len(losses) == 1 else None
    assert losses[1] < losses[0]


def test_the_teachers_images_are_those_that_its_own_processor_makes():
    torch.manual_seed(0)
    student = ViTImageProcessorPil(do_resize=False, do_normalize=False)
    teacher = ViTImageProcessorPil(do_resize=False, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4])
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    ours, theirs = (torch.as_tensor(made(image, return_tensors="pt")["pixel_values"]) for made in (student, teacher))
    for first, second, x, z in ((student, teacher, ours, theirs), (teacher, student, theirs, ours)):
        scale, shift = between_processors(first, second)
        torch.testing.assert_close(x * scale[:, None, None] + shift[:, None, None], z, rtol=1e-4, atol=1e-5)
    assert between_processors(teacher, teacher) is None
    model = tiny("vit").float()
    made = OutputTeacher(model, images=between_processors(student, teacher)).logits({"pixel_values": ours[:, :, :16, :16].repeat(1, 1, 2, 2), "labels": 0})
    torch.testing.assert_close(made, model(theirs.repeat(1, 1, 2, 2)).logits)


def test_a_teacher_that_cannot_teach_is_refused_by_name():
    student, teacher = bcosify(tiny("bert")), tiny("bert", num_labels=5)
    teacher.config._name_or_path = "some/teacher"
    with pytest.raises(ValueError, match="a teacher of 3 classes, as the student has, got 5 of some/teacher"):
        check_teacher(teacher, student)
    with pytest.raises(ValueError, match=r"a teacher of 90 tokens of its vocabulary, .* got 80"):
        check_teacher(tiny("bert", vocab_size=80), student)
    with pytest.raises(ValueError, match=r"new and random .classifier.weight.* distillation_teacher"):
        check_teacher(tiny("bert"), student, {"classifier.weight"})
    for wrong in ({"weight": -1.0}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match="distillation_weight >= 0 and distillation_temperature > 0"):
            OutputTeacher(tiny("bert"), **wrong)
