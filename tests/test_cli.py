"""The command line, each command on small models."""

import json

import numpy as np
import pytest
import yaml
from conftest import tiny
from PIL import Image
from transformers import AutoModelForImageClassification, BertTokenizerFast
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from typer.testing import CliRunner

from bcos_hf import bcosify
from bcos_hf.cli import app


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A standard and a B-cos ViT, a B-cos BERT, and pictures."""
    folder = tmp_path_factory.mktemp("cli")
    standard = tiny("vit").float()
    standard.save_pretrained(folder / "plain")
    bcosify(standard).save_pretrained(folder / "vit")
    for name in ("plain", "vit"):
        ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder / name)
    bcosify(tiny("bert").float()).save_pretrained(folder / "bert")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "<", ">", "script"]))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (folder / "pictures" / label).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(random.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(folder / "pictures" / label / f"{i}.png")
    (folder / "broken.png").write_bytes(b"%PDF-1.4")
    return folder


def run(*arguments, status=0):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == status, (done.output, done.exception)
    return done


def test_every_command_has_help_with_an_example():
    for command in ("convert", "train", "explain", "push"):
        assert f"bcos-hf {command}" in run(command, "--help").stdout


def test_convert(folder, tmp_path):
    made = json.loads(run("convert", folder / "plain", tmp_path / "bcos", "--b", "1.5", "--json").stdout.splitlines()[-1])
    assert made["model"] == "BcosViTForImageClassification" and made["converted"]
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "bcos")
    assert model.config.b == 1.5 and (tmp_path / "bcos" / "preprocessor_config.json").exists()
    assert "Saved to" in run("convert", folder / "plain", tmp_path / "again").stdout
    assert "b: expected a finite number >= 1" in run("convert", folder / "plain", tmp_path / "never", "--b", "0.5", status=1).stderr
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("form", ["png", "html"])
def test_explain_pictures(folder, tmp_path, form):
    given = ["explain", folder / "vit", folder / "pictures", "--output", tmp_path, "--format", form, "--json"]
    made = json.loads(run(*given, "--target", "LABEL_1").stdout.splitlines()[-1])
    assert len(made["explanations"]) == 16 and {one["label"] for one in made["explanations"]} == {"LABEL_1"}
    assert len(list(tmp_path.glob(f"*.{form}"))) == 16
    done = run("explain", folder / "vit", folder / "broken.png", folder / "pictures" / "cat" / "0.png", "--output", tmp_path, status=1)
    assert "broken.png" in done.stderr and "0.png" in done.stdout  # the others are explained all the same


def test_explain_texts_and_errors(folder, tmp_path):
    made = run("explain", folder / "bert", "a <script> film", "--output", tmp_path, "--format", "html")
    page = (tmp_path / "00000.html").read_text()
    assert "LABEL_" in made.stdout and "<script" not in page
    for arguments, message in (
        ((folder / "plain", "x.png"), "expected a B-cos model"),
        ((folder / "vit", "x.png", "--target", "zebra"), "--target: expected"),
        ((folder / "vit", "x.png", "--format", "gif"), "--format: expected"),
    ):
        assert message in run("explain", *arguments, "--output", tmp_path, status=1).stderr


def test_train_takes_a_recipes_settings(folder, tmp_path):
    settings = dict(
        model_name_or_path=str(folder / "plain"), dataset_name=str(folder / "pictures"), do_train=True, max_steps=2, per_device_train_batch_size=4,
        use_cpu=True, report_to="none", save_strategy="no", eval_strategy="no", output_dir=str(tmp_path / "out"),
    )  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    made = json.loads(run("train", "image", tmp_path / "config.yaml", "--b", "1.25").stdout.splitlines()[-1])
    assert 0 <= made["test_accuracy"] <= 1
    assert AutoModelForImageClassification.from_pretrained(tmp_path / "out").config.b == 1.25
    assert "expected one of" in run("train", "music", status=1).stderr
