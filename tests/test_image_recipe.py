"""The image recipe on a tiny ResNet: one process, two, streamed, resumed; and a ViT at another size."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_python, tiny
from datasets import ClassLabel, Dataset, Image
from PIL import Image as Pillow
from test_image_callbacks import SIZES, resnet
from transformers import AutoModelForImageClassification, ResNetForImageClassification, TrainingArguments, ViTImageProcessorPil

from bcos_hf.models.bcos_layers import Bcos
from bcos_hf.training import AdaptiveClippingCallback, ImageDataArguments, ImageModelArguments, image_trainer, parse, train_and_test


ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "bcosify_image_classification.py"


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
def here(workspace, own_cache, monkeypatch):
    monkeypatch.chdir(workspace)
    return workspace


def made(*arguments):
    return image_trainer(*parse(list(arguments), ImageModelArguments, ImageDataArguments, TrainingArguments))


def test_recipe_trains_and_saves_what_loads_with_its_processor(workspace, run_recipe):
    assert "test accuracy" in run_recipe(workspace, RECIPE, "config.yaml", "--output_dir", "one")
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


@pytest.mark.parametrize("encoding", ["normalized", "add_inverse"])
def test_calibration_refits_on_unvaried_training_images(encoding, here):
    given = ["config.yaml", "--input_encoding", encoding, "--b", "1.5"]
    trainer, inputs = made(*given, "--calibration_samples", "20")
    report = trainer.model.conversion_report
    assert report.calibration["samples"] == 20 and report.calibration["source"] == "pictures" and trainer.model.config.weight_norm == "none"
    assert report.fits and "classifier.1" not in {fit["name"] for fit in report.fits}  # of other classes, so that it is new
    pixels = torch.stack([inputs["validation"][i]["pixel_values"] for i in range(6)])
    standard = ResNetForImageClassification.from_pretrained("model").eval()
    z = pixels if encoding == "normalized" else (pixels - 0.5) / 0.5  # the mean and deviation of the image processor
    features = [
        standard.resnet(z).pooler_output,
        *(made(*given, *more)[0].model.eval().resnet(pixels).pooler_output for more in ([], ["--calibration_samples", "20"])),
    ]
    plain, refitted = ((other - features[0]).norm() for other in features[1:])
    assert refitted < plain
    again, _ = made(*given)
    assert torch.equal(again.model.classifier[1].weight, trainer.model.classifier[1].weight)


def test_calibration_of_a_stream_and_what_does_not_go_with_it(here):
    trainer, _ = made("stream.yaml", "--calibration_samples", "16", "--train_file", "train-0.parquet")
    assert trainer.model.conversion_report.calibration == {**trainer.model.conversion_report.calibration, "samples": 12, "source": "train-0.parquet"}
    for given, message in (
        (["--from_scratch", "true"], "from_scratch with calibration_samples 16"),
        (["--weight_norm", "unit"], "weight_norm 'unit' with calibration_samples 16"),
    ):
        with pytest.raises(ValueError, match=message):
            made("config.yaml", "--calibration_samples", "16", *given)
    assert type(made("config.yaml", "--calibration_samples", "16", "--conventional", "true", "--from_scratch", "true")[0].model) is ResNetForImageClassification


@pytest.mark.parametrize("kind", [(), ("--conventional", "true"), ("--from_scratch", "true")])
def test_the_head_is_trained_first(kind, here):
    plain, first = (made("config.yaml", *kind, "--head_first_steps", steps)[0].model.state_dict() for steps in ("0", "20"))
    changed = {name for name, value in plain.items() if not torch.equal(value, first[name])}
    assert changed and changed <= {"classifier.1.weight", "classifier.1.bias"}


def test_a_trained_classifier_teaches_its_twin_with_mixed_images_of_its_own_encoding(here):
    resnet(2).save_pretrained("two")
    ViTImageProcessorPil(size={"height": 12, "width": 12}).save_pretrained("two")
    given = ["config.yaml", "--model_name_or_path", "two", "--distillation_weight", "2", "--input_encoding", "add_inverse"]
    trainer, _ = made(*given, "--output_dir", "taught")
    teacher, pixels = trainer.output_teacher, torch.rand(2, 3, 12, 12)
    torch.testing.assert_close(teacher.logits({"pixel_values": pixels}), teacher.teacher((pixels - 0.5) / 0.5).logits)
    trainer.train()
    with pytest.raises(ValueError, match="expected a teacher of 2 classes, as the student has, got 3 of model"):
        made(*given, "--distillation_teacher", "model")
    with pytest.raises(ValueError, match="model has weights that are new and random"):
        made("config.yaml", "--distillation_weight", "1")


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
    run_python(workspace, *launch, "watched.py", str(RECIPE), "stream.yaml", *still)
    first, second = (set(json.loads((workspace / f"seen-{rank}.json").read_text())) for rank in range(2))
    assert len(first) >= 8 and len(second) >= 8 and not first & second
    results = json.loads((workspace / "both" / "test_results.json").read_text())
    assert round(results["test_accuracy"] * 10, 6).is_integer() and (workspace / "both" / "model.safetensors").exists()


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
