"""The command line, each command on small models."""

import json

import numpy as np
import pytest
import torch
import yaml
from conftest import tiny
from datasets import load_dataset
from PIL import Image
from test_bcos_v2 import LAYOUTS, random_state
from test_openai_clip import openai_state
from transformers import AutoImageProcessor, AutoModelForImageClassification, BertTokenizerFast
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from typer.testing import CliRunner

from bcos_hf import bcosify
from bcos_hf.checkpoints import from_bcos_v2
from bcos_hf.checkpoints.bcos_v2_models import MODELS
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
    for command in ("convert", "import", "train", "explain", "push", "demo"):
        assert f"bcos-hf {command}" in run(command, "--help").stdout


def test_convert(folder, tmp_path):
    made = json.loads(run("convert", folder / "plain", tmp_path / "bcos", "--b", "1.5", "--json").stdout.splitlines()[-1])
    assert made["model"] == "BcosViTForImageClassification" and made["converted"]
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "bcos")
    assert model.config.b == 1.5 and (tmp_path / "bcos" / "preprocessor_config.json").exists()
    assert "Saved to" in run("convert", folder / "plain", tmp_path / "again").stdout
    assert "b: expected a finite number >= 1" in run("convert", folder / "plain", tmp_path / "never", "--b", "0.5", status=1).stderr
    assert not (tmp_path / "never").exists()


def test_import(tmp_path):
    file, name = tmp_path / "weights.pth", "vitc_ti_patch1_14"
    torch.save(random_state(LAYOUTS["simple_vit"](MODELS[name].fields)), file)
    made = json.loads(run("import", "bcos-v2", file, tmp_path / "vitc", "--name", name, "--json").stdout.splitlines()[-1])
    assert made["model"] == "BcosSimpleViTForImageClassification" and made["parameters"] == pytest.approx(5.32e6, rel=1e-3)
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "vitc")
    state = from_bcos_v2(file, name).state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not AutoImageProcessor.from_pretrained(tmp_path / "vitc", backend="pil").do_normalize
    before = sorted(path.name for path in (tmp_path / "vitc").iterdir())
    for arguments, message in (
        (("bcos-v2", file, tmp_path / "vitc", "--name", name), "expected a new or empty folder"),
        (("bcos-v2", file, tmp_path / "new"), "without a name"),
        (("bcos-v2", file, tmp_path / "new", "--name", "resnet18"), "missing: "),
        (("openai-clip", file, tmp_path / "new", "--name", "RN50"), "--name: expected none"),
        (("nothing", file, tmp_path / "new"), "expected one of ['bcos-lm', 'bcos-v2', 'bcosification', 'cifar-resnet', 'openai-clip'"),
    ):
        assert message in run("import", *arguments, status=1).stderr
    assert not (tmp_path / "new").exists() and before == sorted(path.name for path in (tmp_path / "vitc").iterdir())
    torch.save(openai_state(), tmp_path / "clip.pt")
    assert "CLIPResNetModel, " in run("import", "openai-clip", tmp_path / "clip.pt", tmp_path / "clip").stdout


def test_explain_as_a_data_set(folder, tmp_path):
    broken, given = folder / "broken.png", sorted((folder / "pictures").rglob("*.png"))
    done = run("explain", folder / "vit", broken, folder / "pictures", "--output", tmp_path / "pictures", "--format", "parquet", "--json", status=1)
    made = json.loads(done.stdout.splitlines()[-1])
    assert made["failed"] == 1 and [one["input"] for one in made["explanations"]] == [str(file) for file in given]
    rows = load_dataset(str(tmp_path / "pictures"), split="explained")
    for one, row in zip(made["explanations"], rows, strict=True):
        assert sum(map(sum, row["contributions"])) + row["constant"] + row["residual"] == pytest.approx(one["logit"], abs=1e-4)
    run("explain", folder / "bert", "a film", "--output", tmp_path / "texts", "--format", "parquet", "--target", "1")
    assert load_dataset(str(tmp_path / "texts"), split="explained")[0]["target"] == 1


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
    page = (tmp_path / "a-script-film.html").read_text()
    assert "LABEL_" in made.stdout and "<script" not in page
    run("explain", folder / "bert", "a <script> film", "../a script film", "--output", tmp_path, "--format", "html", "--target", "1")
    assert {path.name for path in tmp_path.iterdir()} == {"a-script-film.html", "a-script-film-2.html", "a-script-film-3.html"}
    assert (tmp_path / "a-script-film.html").read_text() == page
    for arguments, message in (
        ((folder / "plain", "x.png"), "expected a B-cos model"),
        ((folder / "vit", "x.png", "--target", "zebra"), "--target: expected"),
        ((folder / "vit", "x.png", "--format", "gif"), "--format: expected"),
        ((folder / "vit", tmp_path), "expected pictures, found none"),
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
