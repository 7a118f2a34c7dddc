"""B-cosifying a CLIP by distillation: the losses, the recipe with one and two processes, resumption, and shards with broken pictures."""

import io
import json
import tarfile
from copy import deepcopy
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import yaml
from conftest import EMBEDDERS, run_python
from PIL import Image
from safetensors.torch import load_file
from test_openai_clip import openai_state
from transformers import TrainerCallback, TrainingArguments
from transformers.image_utils import OPENAI_CLIP_MEAN
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from bcos_hf.checkpoints import from_openai_clip
from bcos_hf.data.pictures import load_pictures
from bcos_hf.metrics import image_embeddings, zero_shot_accuracy
from bcos_hf.models.modeling_dual_encoder import DualEncoderConfig, DualEncoderModel
from bcos_hf.training import EMBEDDING_LOSSES, CLIPArguments, PictureArguments, clip_trainer, parse, save_text_side, siglip_loss, train_and_test
from bcos_hf.training.embedding_losses import prompt_divergence


RECIPE = Path(__file__).parents[1] / "recipes" / "bcosify_clip.py"


def test_siglip_loss_is_algorithm_1_written_slowly():
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 5).double(), torch.randn(7, 5).double()
    own, counted = torch.tensor([2, 3, 4]), torch.tensor([1, 1, 1, 0, 1, 1, 0]).bool()
    total, pictures = 0.0, 0
    for i in (0, 2):  # the second student's picture is not counted
        pictures += 1
        for j in range(7):
            cosine = (student[i] @ teacher[j] / student[i].norm() / teacher[j].norm()).item()
            sign = 1 if j == own[i] else -1
            total += counted[j].item() * np.log1p(np.exp(-sign * (10 * cosine - 10)))
    torch.testing.assert_close(siglip_loss(student, teacher, own, counted).double(), torch.tensor(total / pictures).double(), rtol=1e-5, atol=0)


def test_all_losses_are_least_for_the_teacher_itself():
    torch.manual_seed(0)
    teacher, other, classes = torch.randn(4, 6), torch.randn(4, 6), torch.nn.functional.normalize(torch.randn(3, 6), dim=-1)
    for loss in EMBEDDING_LOSSES.values():
        assert loss(teacher, teacher) < loss(other, teacher)
        broken = torch.tensor([True, True, False, True])
        changed = teacher.clone()
        changed[2] = 100
        torch.testing.assert_close(loss(changed, teacher, None, broken), loss(teacher, teacher, None, broken))
    assert prompt_divergence(teacher, teacher, classes).abs() < 1e-6 < prompt_divergence(other, teacher, classes)


def picture(seed: int, kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small teacher, 32 pictures and a configuration."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    transformers.AutoModel.from_config(transformers.AutoConfig.for_model("clip", **deepcopy(EMBEDDERS["clip"]))).save_pretrained(folder / "teacher")
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder / "teacher")
    (folder / "pictures").mkdir()
    for i in range(32):
        (folder / "pictures" / f"{i:03}.png").write_bytes(picture(i))
    settings = dict(
        teacher=str(folder / "teacher"), dataset_name=str(folder / "pictures"), smallest_crop=1.0, flip=0.0, do_train=True, max_steps=6, logging_steps=1,
        per_device_train_batch_size=8, learning_rate=1e-3, lr_scheduler_type="constant", save_strategy="no", eval_strategy="no", use_cpu=True, report_to="none",
        dataloader_pin_memory=False,
    )  # fmt: skip
    (folder / "clip.yaml").write_text(yaml.safe_dump(settings))
    return folder


def arguments(folder, *given):
    return parse([str(folder / "clip.yaml"), *map(str, given)], CLIPArguments, PictureArguments, TrainingArguments)


def history(output, quantity: str = "loss") -> list[float]:
    return [entry[quantity] for entry in json.loads((output / "trainer_state.json").read_text())["log_history"] if "loss" in entry]


def test_two_processes_go_the_way_of_one_with_twice_the_batch(folder):
    """Negatives, what the loss learns, and the batch norms of a residual tower are shared."""
    torch.save(openai_state(), folder / "two.pt")
    from_openai_clip(folder / "two.pt").save_pretrained(folder / "teacher-of-two")  # without a tokenizer, which is on the Hub
    varied = [
        "--teacher",
        folder / "teacher-of-two",
        "--flip",
        "0.5",
        "--smallest_crop",
        "0.5",
        "--learn_scale",
        "true",
        "--image_size",
        "64",
        "--learning_rate",
        "1e-4",
    ]
    train_and_test(*clip_trainer(*arguments(folder, *varied, "--output_dir", folder / "one")))
    launch = ["-m", "accelerate.commands.launch", "--config_file", RECIPE.parent / "configs" / "accelerate" / "two_cpus.yaml"]
    two = [*launch, RECIPE, "clip.yaml", *varied, "--output_dir", "two", "--per_device_train_batch_size", "4"]
    assert "saved to two" in run_python(folder, *two).stdout
    for quantity, different in (("loss", 6), ("loss_scale", 6), ("loss_bias", 6)):
        ours = history(folder / "one", quantity)
        assert len(set(ours)) == different
        np.testing.assert_allclose(history(folder / "two", quantity), ours, rtol=0, atol=1e-4)
    ours, theirs = (load_file(folder / name / "model.safetensors") for name in ("one", "two"))
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-4


class Killed(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise KeyboardInterrupt


def test_killed_in_an_epoch_and_resumed_it_ends_with_the_same_weights(folder):
    given = ["--save_strategy", "steps", "--save_steps", "3", "--flip", "0.5", "--smallest_crop", "0.5", "--learn_scale", "true"]
    whole = arguments(folder, *given, "--output_dir", folder / "whole")
    train_and_test(*clip_trainer(*whole))
    broken = arguments(folder, *given, "--output_dir", folder / "broken")
    trainer, inputs = clip_trainer(*broken)
    trainer.add_callback(Killed())
    with pytest.raises(KeyboardInterrupt):
        train_and_test(trainer, inputs)
    trainer, inputs = clip_trainer(*broken)
    train_and_test(trainer, inputs)
    assert trainer.state.global_step == 6
    ours, theirs = (load_file(folder / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert history(folder / "broken", "loss_scale") == history(folder / "whole", "loss_scale")
    (folder / "broken" / "checkpoint-6" / "siglip.safetensors").unlink()
    last = folder / "broken" / "checkpoint-6"
    trainer, inputs = clip_trainer(*arguments(folder, *given, "--output_dir", folder / "broken", "--resume_from_checkpoint", last))
    with pytest.raises(ValueError, match=r"siglip.safetensors is missing"):
        train_and_test(trainer, inputs)


def test_calibration_refits_the_image_tower_alone(folder):
    embeddings = {}
    for samples in (0, 24):
        trainer, inputs = clip_trainer(*arguments(folder, "--output_dir", folder / "refitted", "--b", 1.5, "--calibration_samples", samples))
        pixels = torch.stack([inputs["train"][i]["pixel_values"] for i in range(8)])
        embeddings[samples] = image_embeddings(trainer.model.eval(), pixels)
        fits = {fit["name"] for fit in trainer.model.conversion_report.fits}
    assert fits and all(name.startswith(("vision_model", "visual_projection")) for name in fits)
    report = trainer.model.conversion_report
    assert report.calibration["samples"] == 24 and report.calibration["source"] == str(folder / "pictures")
    target = image_embeddings(trainer.teacher, pixels)
    before, after = ((made * target).sum(1).mean() for made in embeddings.values())
    assert after > before
    other, inputs = clip_trainer(
        *arguments(folder, "--output_dir", folder / "inverse", "--b", 1.5, "--calibration_samples", 24, "--input_encoding", "add_inverse", "--max_steps", 2)
    )
    inverse = torch.stack([inputs["train"][i]["pixel_values"] for i in range(8)])
    assert 0 <= inverse.min() < inverse.max() <= 1
    torch.testing.assert_close(other.teacher_embeds(inverse), trainer.teacher_embeds(pixels), rtol=1e-4, atol=1e-5)
    assert (image_embeddings(other.model.eval(), inverse) * target).sum(1).mean() > before
    train_and_test(other, inputs)
    (folder / "head.yaml").write_text("head_first_steps: 300\n")
    with pytest.raises(ValueError, match=r"unknown settings .'head_first_steps'"):
        parse([str(folder / "head.yaml")], CLIPArguments, PictureArguments, TrainingArguments)


def test_only_the_image_tower_learns_and_the_student_comes_nearer(folder):
    trainer, inputs = clip_trainer(*arguments(folder, "--output_dir", folder / "near", "--max_steps", "12", "--loss", "cosine"))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    train_and_test(trainer, inputs)
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith(("vision_model", "visual_projection")) for name in changed)
    losses = history(folder / "near")
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert type(transformers.AutoModel.from_pretrained(folder / "near")).__name__ == "BcosCLIPModel"


def test_a_cached_teacher_teaches_the_same_and_is_asked_once(folder, monkeypatch):
    losses = {}
    for name, given in (("asked", []), ("cached", ["--teacher_cache", folder / "kept"]), ("again", ["--teacher_cache", folder / "kept"])):
        trainer, inputs = clip_trainer(*arguments(folder, *given, "--output_dir", folder / name))
        if name == "again":
            monkeypatch.setattr(trainer.teacher, "get_image_features", None)
        train_and_test(trainer, inputs)
        losses[name] = history(folder / name)
    np.testing.assert_allclose(losses["cached"], losses["asked"], rtol=1e-5)
    assert losses["again"] == losses["cached"] and len(list((folder / "kept").iterdir())) == 1
    with pytest.raises(ValueError, match="pictures that stay the same"):
        clip_trainer(*arguments(folder, "--teacher_cache", folder / "kept", "--flip", "0.5", "--output_dir", folder / "wrong"))


@pytest.mark.parametrize("streaming", [True, False])
def test_a_shard_with_broken_members_goes_through_with_three_counted_warnings(folder, streaming, caplog, monkeypatch):
    monkeypatch.setattr(transformers.utils.logging.get_logger("bcos_hf"), "propagate", True)
    members = [("000.jpg", picture(0, "jpeg")[:300]), ("000.txt", b"half a picture"), ("001.jpg", b"no picture"), ("001.txt", b"a text")]
    members += [("002.png", picture(2)), ("002.txt", b" ")]
    members += [(f"{i:03}.{kind}", content) for i in range(3, 11) for kind, content in (("png", picture(i)), ("txt", b"a text"))]
    with tarfile.open(folder / "shard-0.tar", "w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    shards = ["--shards", folder / "shard-*.tar", "--broken_images", "skip", "--max_steps", "2", "--streaming", str(streaming).lower()]
    settings = yaml.safe_load((folder / "clip.yaml").read_text())
    settings.pop("dataset_name")
    (folder / "shards").mkdir(exist_ok=True)
    (folder / "shards" / "clip.yaml").write_text(yaml.safe_dump(settings))
    trainer, _ = clip_trainer(*arguments(folder / "shards", *shards, "--output_dir", folder / f"shards-{streaming}"))
    _, columns = load_pictures(shards=str(folder / "shard-*.tar"), streaming=streaming)
    assert columns.names == ["image", "caption"]
    trainer.train()
    told = " ".join(record.message for record in caplog.records)
    assert all(text in told for text in ("left out, as 1 so far", "left out, as 2 so far", "is empty, as of 1 so far"))
    assert np.isfinite([entry["loss"] for entry in trainer.state.log_history if "loss" in entry]).all()


def test_a_file_of_openai_s_is_a_teacher(folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    torch.save(openai_state(), folder / "RN.pt")
    given = ["--teacher", folder / "RN.pt", "--output_dir", folder / "openai", "--max_steps", "2"]
    trainer, inputs = clip_trainer(*arguments(folder, *given))
    train_and_test(trainer, inputs)
    with pytest.raises(OSError):  # there is no network to fetch a tokenizer by
        save_text_side(str(folder / "RN.pt"), trainer.processing_class, folder / "openai")
    model = transformers.AutoModel.from_pretrained(folder / "openai")
    assert type(model).__name__ == "BcosCLIPResNetModel" and trainer.train_dataset[0]["pixel_values"].shape == (3, 64, 64)
    assert list(transformers.AutoImageProcessor.from_pretrained(folder / "openai", backend="pil").image_mean) == OPENAI_CLIP_MEAN


@pytest.mark.parametrize("cached", [False, True])
def test_zero_shot_accuracy_is_measured_at_every_evaluation(tmp_path, cached):
    torch.manual_seed(0)
    sizes = deepcopy(EMBEDDERS["dual_encoder"])
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "cat", "dog"]))
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "teacher")
    DualEncoderModel(DualEncoderConfig(**sizes)).save_pretrained(tmp_path / "teacher")
    CLIPImageProcessorPil(size=16, crop_size=16).save_pretrained(tmp_path / "teacher")
    for split, name, i in product(("train", "validation", "test"), ("cat", "dog"), range(6)):
        (tmp_path / "pictures" / split / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "pictures" / split / name / f"{i}.png").write_bytes(picture(10 * len(split + name) + i))
    settings = dict(
        teacher=str(tmp_path / "teacher"), dataset_name=str(tmp_path / "pictures"), eval_dataset_name=str(tmp_path / "pictures"), smallest_crop=1.0, flip=0.0,
        do_train=True, max_steps=4, eval_strategy="steps", eval_steps=2, per_device_train_batch_size=4, per_device_eval_batch_size=5, save_strategy="no",
        use_cpu=True, report_to="none", dataloader_pin_memory=False, output_dir=str(tmp_path / "out"), teacher_cache=str(tmp_path / "kept") if cached else None,
    )  # fmt: skip
    (tmp_path / "clip.yaml").write_text(yaml.safe_dump(settings))
    trainer, inputs = clip_trainer(*parse([str(tmp_path / "clip.yaml")], CLIPArguments, PictureArguments, TrainingArguments))
    metrics = train_and_test(trainer, inputs)
    assert [entry["step"] for entry in trainer.state.log_history if "eval_accuracy" in entry] == [2, 4]
    rows = [inputs["test"][i] for i in range(12)]
    embeds = image_embeddings(trainer.model, torch.stack([row["pixel_values"] for row in rows]))
    right = zero_shot_accuracy(embeds, trainer.class_embeds, torch.tensor([row["labels"] for row in rows]))
    assert metrics["test_accuracy"] == pytest.approx(right["top1"])


def test_wrong_settings_say_so(folder):
    for given, message in (
        (["--loss", "l1"], "loss: expected one of"),
        (["--loss", "mse", "--learn_scale", "true"], "learn_scale: expected loss 'siglip'"),
        (["--loss_scale", "0", "--learn_scale", "true"], "loss_scale: expected a number > 0"),
        (["--shards", "x.tar"], "one of them"),
        (["--prompt_weight", "1"], "expected class names"),
        (["--streaming", "true", "--max_steps", "-1"], "max_steps > 0"),
    ):
        with pytest.raises(ValueError, match=message):
            clip_trainer(*arguments(folder, "--output_dir", folder / "wrong", *given))
