"""Clipping, averaging and bias decay, against their formulas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForImageClassification, ResNetConfig, ResNetForImageClassification, TrainingArguments, set_seed

from bcos_hf import bcosify
from bcos_hf.training import AdaptiveClippingCallback, AveragingCallback, BcosTrainer, BiasDecayCallback, adaptive_clip_grad_
from bcos_hf.training.averaging import decay_at
from bcos_hf.training.clipping import clipped_parameters


SIZES = dict(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")


def resnet(classes=2):
    set_seed(0)
    return ResNetForImageClassification(ResNetConfig(**SIZES, num_labels=classes))


def examples(count=32):
    """Noise, brighter on the side that the label says."""
    generator = torch.Generator().manual_seed(0)
    pictures, labels = torch.randn(count, 3, 16, 16, generator=generator), [i % 2 for i in range(count)]
    for picture, label in zip(pictures, labels, strict=True):
        picture[:, :, label * 8 : label * 8 + 8] += 1
    return [{"pixel_values": picture, "labels": label} for picture, label in zip(pictures, labels, strict=True)]


def trainer_for(folder, model, callbacks=(), **settings):
    defaults = dict(
        per_device_train_batch_size=8, max_steps=4, learning_rate=1e-2, max_grad_norm=0.0, use_cpu=True, save_strategy="no", report_to="none", logging_steps=1,
        disable_tqdm=True, dataloader_pin_memory=False, optim="sgd",
    )  # fmt: skip
    args = TrainingArguments(str(folder), **{**defaults, **settings})
    return BcosTrainer(model, args, train_dataset=examples(), eval_dataset=examples(8), callbacks=list(callbacks), off_labels="uniform")


# -- adaptive clipping


@given(st.integers(1, 4), st.integers(1, 5), st.floats(0.001, 1), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_clipping_is_the_formula_of_the_paper(out, fan_in, clipping, seed):
    torch.manual_seed(seed)
    parameters = [torch.randn(out, fan_in), torch.randn(out, fan_in, 3, 3) * 0.01, torch.zeros(out, fan_in), torch.randn(out)]
    parameters = [parameter.double().requires_grad_() for parameter in parameters]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter) * 10 ** torch.randn(len(parameter), *[1] * (parameter.dim() - 1), dtype=torch.double)
    slow = []
    for parameter in parameters:
        clipped = parameter.grad.clone()
        for unit in range(out) if parameter.dim() > 1 else [slice(None)]:
            weight, gradient = max(parameter[unit].norm().item(), 1e-3), parameter.grad[unit].norm().item()
            if gradient / weight > clipping:
                clipped[unit] = clipping * weight / gradient * parameter.grad[unit]
        slow.append(clipped)
    adaptive_clip_grad_(parameters, clipping)
    for parameter, clipped in zip(parameters, slow, strict=True):
        torch.testing.assert_close(parameter.grad, clipped)


def test_the_logit_layer_is_left_out_and_must_be_there():
    model = bcosify(resnet())
    left = {id(parameter) for parameter in model.parameters()} - {id(parameter) for parameter in clipped_parameters(model)}
    assert left == {id(parameter) for parameter in model.classifier.parameters()}
    with pytest.raises(ValueError, match=r"expected logits made by one of \('head',\)"):
        clipped_parameters(model, ["head"])
    assert len(clipped_parameters(nn.Linear(2, 2), [])) == 2
    for wrong in ({"clipping": 0}, {"eps": 0}):
        with pytest.raises(ValueError, match="expected clipping > 0 and eps > 0"):
            adaptive_clip_grad_([], **wrong)


def step_of(trainer):
    """How far plain gradient descent at rate 1 moved each parameter in one step: its (clipped) gradient."""
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    return {name: before[name] - parameter.detach() for name, parameter in trainer.model.named_parameters()}


def test_trainer_clips_the_gradient_of_the_whole_step(tmp_path):
    def model():
        return bcosify(resnet(), batch_norm="position", learnable_b=True)  # no statistics of a batch, which are not those of its parts

    settings = dict(max_steps=1, learning_rate=1.0, weight_decay=0.0)
    parts = dict(gradient_accumulation_steps=4, per_device_train_batch_size=2)
    free = step_of(trainer_for(tmp_path, model(), **settings))
    whole = step_of(trainer_for(tmp_path, model(), [AdaptiveClippingCallback()], **settings))
    accumulated = step_of(trainer_for(tmp_path, model(), [AdaptiveClippingCallback()], **settings, **parts))
    for name, parameter in model().named_parameters():
        parameter.grad = free[name].clone()
        if not name.startswith("classifier"):
            adaptive_clip_grad_([parameter], 0.01)
        torch.testing.assert_close(whole[name], parameter.grad, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(accumulated[name], whole[name], rtol=1e-3, atol=1e-6)
    assert any(not torch.allclose(whole[name], free[name], atol=1e-6) for name in free)


# -- averaging


class Watch(AveragingCallback):
    """Keeps the weights after every step."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.seen = [*getattr(self, "seen", []), {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}]
        super().on_step_end(args, state, control, model=model, **kwargs)


def average_of(start, seen, decay):
    for step, weights in enumerate(seen, 1):
        d = min(decay, (1 + step) / (10 + step))
        start = {name: d * start[name] + (1 - d) * weights[name] if weights[name].is_floating_point() else weights[name] for name in start}
    return start


def test_the_average_is_the_formula_and_takes_the_models_place(tmp_path):
    model, watch = bcosify(resnet()), Watch(0.3)
    start = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    trainer_for(tmp_path, model, [watch], eval_strategy="steps", eval_steps=2).train()
    slow = average_of(start, watch.seen, 0.3)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, slow[name], msg=name)
    assert [decay_at(step, 0.3) for step in (1, 2, 3, 10)] == pytest.approx([2 / 11, 3 / 12, 0.3, 0.3])


def test_evaluation_sees_the_average_and_training_goes_on_with_the_weights(tmp_path):
    def losses(folder, **settings):
        watch = Watch(0.5)
        trainer = trainer_for(folder, bcosify(resnet()), [watch], **settings)
        trainer.train()
        return trainer, watch

    evaluated, watch = losses(tmp_path / "a", eval_strategy="steps", eval_steps=3)
    plain, _ = losses(tmp_path / "b")
    train = [[entry["loss"] for entry in trainer.state.log_history if "loss" in entry] for trainer in (evaluated, plain)]
    assert train[0] == train[1]
    third = bcosify(resnet())
    third.load_state_dict(average_of({name: tensor.clone() for name, tensor in bcosify(resnet()).state_dict().items()}, watch.seen[:3], 0.5))
    expected = trainer_for(tmp_path, third).evaluate()["eval_loss"]
    assert next(entry["eval_loss"] for entry in evaluated.state.log_history if "eval_loss" in entry) == pytest.approx(expected, rel=1e-5)


def test_averaging_resumes_from_any_folder_that_has_the_average(tmp_path):
    def trainer(**settings):
        return trainer_for(tmp_path / "out", bcosify(resnet()), [AveragingCallback(0.5)], save_strategy="steps", save_steps=2, **settings)

    whole = trainer()
    whole.train()
    checkpoint = tmp_path / "out" / "checkpoint-2"
    assert load_file(checkpoint / "average.safetensors").keys() == whole.model.state_dict().keys()
    for folder in (checkpoint, tmp_path / "elsewhere"):
        if folder != checkpoint:
            checkpoint.rename(folder)
        resumed = trainer(resume_from_checkpoint=str(folder))
        resumed.train(resume_from_checkpoint=str(folder))
        for name, tensor in resumed.model.state_dict().items():
            torch.testing.assert_close(tensor, whole.model.state_dict()[name], msg=name)
    (folder / "average.safetensors").unlink()
    with pytest.raises(ValueError, match="average.safetensors is missing"):
        resumed.train(resume_from_checkpoint=str(folder))


def test_averaging_refuses_what_it_cannot_do(tmp_path):
    for decay in (0, 1):
        with pytest.raises(ValueError, match="expected 0 < decay < 1"):
            AveragingCallback(decay)
    best = dict(load_best_model_at_end=True, eval_strategy="steps", save_strategy="steps", eval_steps=2, save_steps=2)
    with pytest.raises(ValueError, match="load_best_model_at_end=False"):
        trainer_for(tmp_path, resnet(), [AveragingCallback()], **best).train()


# -- bias decay


def biases(model):
    return torch.cat([parameter.detach().flatten() for name, parameter in model.named_parameters() if name.endswith("bias")])


def test_biases_shrink_in_equal_parts_to_exactly_zero(tmp_path):
    model, seen = bcosify(resnet(), keep_biases=True), []
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.fill_(1.0)

    class Seen(BiasDecayCallback):
        def on_step_end(self, args, state, control, **kwargs):
            super().on_step_end(args, state, control, **kwargs)
            seen.append(biases(model).unique().tolist())

    trainer_for(tmp_path, model, [Seen(0.8)], max_steps=10, learning_rate=0.0).train()
    assert seen[:8] == [[pytest.approx(1 - step / 8)] for step in range(1, 9)]
    assert seen[7:] == [[0.0]] * 3


def test_bias_decay_resumes_and_ends_at_zero_while_biases_learn(tmp_path):
    def trainer():
        return trainer_for(tmp_path, bcosify(resnet(), keep_biases=True), [BiasDecayCallback(1.0)], save_strategy="steps", save_steps=2, max_steps=6)

    def saved(step):
        return biases(AutoModelForImageClassification.from_pretrained(tmp_path / f"checkpoint-{step}"))

    whole = trainer()
    whole.train()
    fourth = saved(4)
    assert fourth.abs().max() > 0 and (biases(whole.model) == 0).all()
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    torch.testing.assert_close(saved(4), fourth)
    assert (biases(resumed.model) == 0).all()


def test_bias_decay_needs_biases(tmp_path):
    with pytest.raises(ValueError, match="keep_biases=True"):
        trainer_for(tmp_path, bcosify(resnet()), [BiasDecayCallback()]).train()
    with pytest.raises(ValueError, match="0 < fraction <= 1"):
        BiasDecayCallback(0)
