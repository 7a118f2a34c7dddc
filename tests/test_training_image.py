"""Clipping, averaging and bias decay against their formulas; the image recipe on a tiny ResNet: one process, two, streamed, resumed, each ablation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import SAME_IMAGE, tiny
from datasets import ClassLabel, Dataset, Image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForImageClassification, ResNetConfig, ResNetForImageClassification, TrainingArguments, ViTImageProcessorPil, set_seed

from bcos_hf import bcosify
from bcos_hf.models.bcos_layers import Bcos
from bcos_hf.training import (
    AdaptiveClippingCallback,
    AveragingCallback,
    BcosTrainer,
    BiasDecayCallback,
    ImageDataArguments,
    ImageModelArguments,
    adaptive_clip_grad_,
    image_trainer,
    parse,
    train_and_test,
)
from bcos_hf.training.averaging import decay_at
from bcos_hf.training.clipping import clipped_parameters
from bcos_hf.training.image import config_fields
from bcos_hf.training.resolution import at_size


ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "bcosify_image_classification.py"
CONFIGS = sorted((ROOT / "recipes" / "configs" / "image").rglob("*.yaml"))
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
    with pytest.raises(ValueError, match="expected the average of the weights"):
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
    model, seen = bcosify(resnet(), use_bias=True), []
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
        return trainer_for(tmp_path, bcosify(resnet(), use_bias=True), [BiasDecayCallback(1.0)], save_strategy="steps", save_steps=2, max_steps=6)

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
    with pytest.raises(ValueError, match="use_bias=True"):
        trainer_for(tmp_path, bcosify(resnet()), [BiasDecayCallback()]).train()
    with pytest.raises(ValueError, match="0 < fraction <= 1"):
        BiasDecayCallback(0)


# -- the recipe


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    resnet(3).save_pretrained(folder / "model")
    ViTImageProcessorPil(size={"height": 12, "width": 12}).save_pretrained(folder / "model")
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("validation", 5)):
        contents, labels = [], []
        for i in range(2 * count):
            label = i % 2
            pixels = generator.integers(0, 128, (8 + i % 9, 16, 3)).astype(np.uint8)
            pixels[:, label * 8 : label * 8 + 8] += 120
            picture, path = Pillow.fromarray(pixels), folder / "pictures" / split / ("left", "right")[label] / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
            contents.append({"bytes": path.read_bytes(), "path": None})
            labels.append(label)
        data = Dataset.from_dict({"image": contents, "label": labels}).cast_column("label", ClassLabel(names=["left", "right"])).cast_column("image", Image())
        for part in range(2):
            data.shard(2, part).to_parquet(folder / f"{split}-{part}.parquet")
    (folder / "config.yaml").write_text(
        "model_name_or_path: model\ndataset_name: pictures\noutput_dir: out\ndo_train: true\nmax_steps: 4\nper_device_train_batch_size: 4\n"
        "learning_rate: 1.0e-3\nuse_cpu: true\nsave_strategy: steps\nsave_steps: 2\nreport_to: none\nadaptive_clipping: 0.01\nmax_grad_norm: 0.0\n"
        "averaging_decay: 0.9\nrand_augment_operations: 2\nmixup: 0.2\ndisable_tqdm: true\ndataloader_pin_memory: false\n"
    )
    (folder / "stream.yaml").write_text(
        "base: config.yaml\ndataset_name:\ntrain_file: train-*.parquet\nvalidation_file: validation-*.parquet\nstreaming: true\n"
    )
    return folder


@pytest.fixture
def here(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", workspace / "cache")
    monkeypatch.setattr("datasets.config.HF_UPDATE_DOWNLOAD_COUNTS", False)
    return workspace


def made(*arguments):
    return image_trainer(*parse(list(arguments), ImageModelArguments, ImageDataArguments, TrainingArguments))


def run(workspace, *command):
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(workspace / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=workspace, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_recipe_trains_and_saves_what_loads_with_its_processor(workspace):
    done = run(workspace, str(RECIPE), "config.yaml", "--output_dir", "one")
    assert "test accuracy" in done.stdout
    config = json.loads((workspace / "one" / "config.json").read_text())
    assert config["model_type"] == "bcos_resnet" and config["logit_bias"] == "auto" and config["id2label"] == {"0": "left", "1": "right"}
    assert (workspace / "one" / "preprocessor_config.json").exists() and "auto_map" in config
    assert (workspace / "one" / "checkpoint-2" / "average.safetensors").exists()


def test_recipe_resumes_and_compares(here):
    trainer, inputs = made("config.yaml", "--output_dir", "two")
    train_and_test(trainer, inputs)
    trainer, inputs = made("config.yaml", "--output_dir", "two", "--max_steps", "6")
    train_and_test(trainer, inputs)
    assert trainer.state.global_step == 6
    trainer, inputs = made("config.yaml", "--output_dir", "plain", "--conventional", "true")
    assert set(train_and_test(trainer, inputs)) >= {"test_accuracy", "test_loss"} and type(trainer.model) is ResNetForImageClassification
    assert trainer.off_labels == "uniform" and any(isinstance(callback, AdaptiveClippingCallback) for callback in trainer.callback_handler.callbacks)


def test_from_scratch_has_random_weights_of_the_same_architecture(here):
    trainer, inputs = made("config.yaml", "--from_scratch", "true", "--seed", "3")
    config, layers = trainer.model.config, [layer for layer in trainer.model.modules() if isinstance(layer, Bcos)]
    assert (config.input_encoding, config.weight_norm, config.hidden_sizes) == ("add_inverse", "unit", SIZES["hidden_sizes"]) and len(layers) > 4
    assert trainer.model.resnet.embedder.embedder.convolution.weight.std() > 0 and not trainer.processing_class.do_normalize
    pixels = inputs["validation"][0]["pixel_values"]
    assert 0 <= pixels.min() < pixels.max() <= 1
    again, other = made("config.yaml", "--from_scratch", "true", "--seed", "3")[0], made("config.yaml", "--from_scratch", "true", "--seed", "4")[0]
    first = trainer.model.classifier[1].weight
    assert torch.equal(first, again.model.classifier[1].weight) and not torch.equal(first, other.model.classifier[1].weight)
    plain, _ = made("config.yaml", "--from_scratch", "true", "--conventional", "true")
    pretrained = ResNetForImageClassification.from_pretrained("model").resnet.state_dict()
    assert type(plain.model) is ResNetForImageClassification
    assert not torch.equal(plain.model.resnet.state_dict()["embedder.embedder.convolution.weight"], pretrained["embedder.embedder.convolution.weight"])


def test_pretrained_weights_are_taken_and_a_head_of_other_classes_is_new(here):
    trainer, _ = made("config.yaml")
    pretrained = ResNetForImageClassification.from_pretrained("model").resnet.embedder.embedder.convolution.weight
    torch.testing.assert_close(trainer.model.resnet.embedder.embedder.convolution.weight, torch.cat([pretrained, -pretrained], 1) / 2)
    assert trainer.model.config.num_labels == 2 and trainer.model.classifier[1].weight.shape[0] == 2


def test_half_precision_weights_are_trained_in_float32_with_statistics_that_half_has_no_room_for(here):
    model = resnet(2).half()
    model.resnet.embedder.embedder.normalization.float().running_var.fill_(1e6)
    model.save_pretrained("half")
    trainer, _ = made("config.yaml", "--model_name_or_path", "half")
    assert trainer.model.dtype == torch.float32 and (trainer.model.resnet.embedder.embedder.normalization.running_var == 1e6).all()


def test_a_batch_is_mixed_in_training_alone(here):
    trainer, inputs = made("config.yaml")
    seen, loss = [], trainer.compute_loss

    def watched(model, inputs, *args, **kwargs):
        seen.append((model.training, inputs["labels"].is_floating_point()))
        return loss(model, inputs, *args, **kwargs)

    trainer.compute_loss = watched
    train_and_test(trainer, inputs)
    assert set(seen) == {(True, True), (False, False)}


def test_a_stream_trains_and_needs_its_number_of_steps(here):
    trainer, inputs = made("stream.yaml", "--output_dir", "stream", "--train_file", "train-0.parquet")
    assert train_and_test(trainer, inputs)["test_accuracy"] >= 0 and trainer.state.global_step == 4
    with pytest.raises(ValueError, match="streaming: expected max_steps > 0"):
        made("stream.yaml", "--max_steps", "-1")


def test_broken_pictures_are_left_out_of_training_and_measures(here, caplog):
    (here / "broken").mkdir()
    files = {split: Dataset.from_parquet(str(here / f"{split}-0.parquet")).cast_column("image", Image(decode=False)) for split in ("train", "validation")}
    for split, data in files.items():
        values = data.to_dict()
        for i in (0, 3):
            values["image"][i]["bytes"] = values["image"][i]["bytes"][:60]
        Dataset.from_dict(values, features=data.features).cast_column("image", Image()).to_parquet(here / "broken" / f"{split}.parquet")
    arguments = ["stream.yaml", "--streaming", "false", "--train_file", "broken/train.parquet", "--validation_file", "broken/validation.parquet"]
    trainer, inputs = made(*arguments, "--output_dir", "broken-out")
    with pytest.raises(ValueError, match=r"train: picture .* cannot be read"):
        trainer.train()
    trainer, inputs = made(*arguments, "--output_dir", "broken-out", "--broken_images", "skip", "--mixup", "0")
    metrics = train_and_test(trainer, inputs)
    logits, labels, _ = trainer.predict(inputs["test"])
    assert (labels == -100).sum() == 2 and metrics["test_accuracy"] == pytest.approx((logits.argmax(-1) == labels)[labels != -100].mean())
    assert "left out, as" in caplog.text


WATCHED = """
import json, os, runpy, sys
from bcos_hf.training import BcosTrainer

seen, step = set(), BcosTrainer.training_step

def watched(self, model, inputs, *rest):
    seen.update(round(float(pixels.double().sum()), 4) for pixels in inputs["pixel_values"])
    return step(self, model, inputs, *rest)

BcosTrainer.training_step = watched
runpy.run_path(sys.argv.pop(1), run_name="__main__")
json.dump(sorted(seen), open(f"seen-{os.environ['RANK']}.json", "w"))
"""


def test_two_processes_train_on_different_pictures_of_a_stream_and_evaluate_all(workspace):
    (workspace / "watched.py").write_text(WATCHED)
    still = ["--smallest_crop", "1.0", "--flip", "0", "--rand_augment_operations", "0", "--output_dir", "both", "--max_steps", "6"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    run(workspace, *launch, "watched.py", str(RECIPE), "stream.yaml", *still)
    first, second = (set(json.loads((workspace / f"seen-{rank}.json").read_text())) for rank in range(2))
    assert len(first) >= 8 and len(second) >= 8 and not first & second
    results = json.loads((workspace / "both" / "test_results.json").read_text())
    assert round(results["test_accuracy"] * 10, 6).is_integer() and (workspace / "both" / "model.safetensors").exists()


# -- another size of pictures


@pytest.mark.parametrize("family", ["vit", "deit", "dinov2"])
def test_positions_for_another_size_are_those_that_transformers_interpolates(family):
    model, pixels = tiny(family), torch.randn(2, 3, 24, 24, dtype=torch.float64)
    before = model(pixels, **({} if family == "dinov2" else {"interpolate_pos_encoding": True})).logits
    torch.testing.assert_close(at_size(model, 24)(pixels).logits, before)
    torch.testing.assert_close(bcosify(model, **SAME_IMAGE)(pixels).logits, before)
    assert at_size(model, 24) is model and model.config.image_size == 24
    with pytest.raises(ValueError, match="expected a multiple of the patch size, 4, got 30"):
        at_size(model, 30)


@pytest.mark.parametrize("family", ["simple_vit", "resnet", "densenet", "convnext"])
def test_a_network_without_positions_takes_any_size_as_it_is(family):
    model = tiny(family)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert all(torch.equal(tensor, state[name]) for name, tensor in at_size(model, 24).state_dict().items())
    assert model(torch.randn(1, 3, 24, 24, dtype=torch.float64)).logits.shape == (1, 3)


@pytest.mark.parametrize("kind", [(), ("--conventional", "true"), ("--from_scratch", "true")])
def test_a_vit_trains_at_another_size_and_loads(kind, here):
    if not (here / "vit").exists():
        tiny("vit").float().save_pretrained(here / "vit")
        ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(here / "vit")
    trainer, inputs = made("config.yaml", "--model_name_or_path", "vit", "--image_size", "20", "--output_dir", f"trained-vit{''.join(kind[:1])}", *kind)
    train_and_test(trainer, inputs)
    loaded, pixels = AutoModelForImageClassification.from_pretrained(trainer.args.output_dir), inputs["test"][0]["pixel_values"][None]
    assert pixels.shape == (1, 3, 20, 20) and loaded.config.image_size == 20
    torch.testing.assert_close(loaded(pixels).logits, trainer.model.eval()(pixels).logits)


# -- the settings of the recipes


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_recipe_is_understood_by_a_model(file):
    model_args, data_args, training_args = parse([str(file), "--bf16", "false"], ImageModelArguments, ImageDataArguments, TrainingArguments)
    fields = config_fields(model_args)
    model = bcosify(resnet(), **fields)
    assert {name: getattr(model.config, name) for name in fields} == fields
    assert training_args.max_grad_norm == 0 or not model_args.adaptive_clipping
    assert not data_args.streaming or training_args.max_steps > 0


def test_every_ablation_differs_from_the_published_row():
    rows = {file.stem: yaml.safe_load(file.read_text()) for file in CONFIGS if file.parent.name == "ablations"}
    changes = {name: {key: value for key, value in row.items() if key not in ("base", "output_dir")} for name, row in rows.items()}
    assert changes.pop("published") == {} and all(changes.values()) and len(changes) >= 8
    assert len({json.dumps(row, sort_keys=True) for row in changes.values()}) == len(changes)
    assert all(row["output_dir"] == f"outputs/ablations/{name}" for name, row in rows.items())


def test_a_logit_bias_is_auto_none_or_a_number():
    assert [config_fields(ImageModelArguments(logit_bias=value))["logit_bias"] for value in ("auto", "none", "-1.5")] == ["auto", None, -1.5]
