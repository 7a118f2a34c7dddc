"""The shell does what the library does: the class that was saved, one reader, and one or two lines for whatever a person gets wrong."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import typer
import yaml
from conftest import tiny
from PIL import Image
from transformers import BertTokenizerFast
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from typer.testing import CliRunner

import bcos_hf.hub
from bcos_hf import bcosify
from bcos_hf.cli import app
from bcos_hf.cli.common import told
from bcos_hf.cli.errors import message_of
from bcos_hf.data.image_files import MODES, decode, in_channels
from bcos_hf.models import load_saved


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "film"]


def run(*arguments, status=0):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == status, (done.output, done.exception)
    assert "Traceback" not in done.output
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shell")
    for head in ("sequence", "token", "mlm"):
        bcosify(tiny("bert", head).float()).save_pretrained(folder / head)
        BertTokenizerFast(vocab={word: number for number, word in enumerate(WORDS)}).save_pretrained(folder / head)
    for name, channels in (("color", 3), ("gray", 1)):
        bcosify(tiny("vit", num_channels=channels).float()).save_pretrained(folder / name)
        ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder / name)
    values = np.random.default_rng(0).integers(0, 255, (4, 8), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values).resize((32, 16)).save(folder / "photo.png", exif=exif)
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_a_model_is_loaded_as_it_was_saved(member, tmp_path):
    model = bcosify(tiny(*member))
    model.save_pretrained(tmp_path)
    assert type(load_saved(tmp_path)) is type(model)


@pytest.mark.parametrize("head", ["sequence", "token", "mlm"])
def test_what_is_pushed_is_the_folders_model(folder, head, monkeypatch):
    pushed = []
    monkeypatch.setattr(bcos_hf.hub, "push", lambda model, *args, **kwargs: pushed.append(model) or "address")
    run("push", folder / head, "org/model")
    ours = load_saved(folder / head).state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in pushed[0].state_dict().items())


@pytest.mark.parametrize("name", ["color", "gray"])
def test_one_image_has_one_logit_in_every_format(folder, tmp_path, name):
    logits = []
    for form in ("png", "html", "parquet"):
        given = (folder / name, folder / "broken.png", folder / "photo.png", folder / "none.png", "--target", 1)
        done = run("explain", *given, "--output", tmp_path / form, "--format", form, "--json", status=1)
        made = json.loads(done.stdout.splitlines()[-1])
        assert made["failed"] == 2 and "none.png" in done.stderr
        logits.append(made["explanations"][0]["logit"])
    image = decode((folder / "photo.png").read_bytes(), 1 if name == "gray" else 3)
    assert image.size == (16, 32) and max(logits) - min(logits) < 1e-4


def test_every_head_is_explained_or_refused(folder, tmp_path):
    long = "good film " * 40
    said = run(
        "explain", folder / "sequence", long, "--output", tmp_path / "a", "--format", "html", "--target", "LABEL_1"
    ).stdout
    assert "the model reads the first 40 of 82 tokens" in said
    assert (
        "film"
        in run(
            "explain", folder / "mlm", "good [MASK]", "--output", tmp_path / "b", "--format", "html", "--target", "film"
        ).stdout
    )
    run("explain", folder / "token", "good film", "--output", tmp_path / "c", "--format", "html", "--position", 1)
    for arguments, message in (
        ((folder / "token", "good film"), "--position: expected the number of a token"),
        ((folder / "sequence", "good", "--position", 1), "--position: expected none"),
        ((folder / "sequence", "good", "--prompt", "film"), "--prompt: expected none"),
        ((folder / "sequence", "good", "--target", "zebra"), "--target: expected one of the 3 classes"),
        ((folder / "mlm", "good film"), "position"),
    ):
        assert message in run("explain", *arguments, "--output", tmp_path, status=1).stderr


@pytest.mark.parametrize(
    "mode, dtype, white", [("I;16", np.uint16, 65535), ("I", np.int32, 2**31 - 1), ("F", np.float32, 1.0)]
)
@pytest.mark.parametrize("channels", MODES)
def test_deep_images_keep_their_range(mode, dtype, white, channels):
    deep = Image.fromarray((np.linspace(0, 1, 256) * white).astype(dtype).reshape(16, 16))
    assert deep.mode == mode
    seen = np.asarray(in_channels(deep, channels)).reshape(256, -1)[:, 0].astype(int)
    assert abs(seen - np.arange(256)).max() <= 1


@pytest.mark.parametrize(
    "error",
    [
        KeyError(1),
        ValueError("1"),
        yaml.YAMLError("line\nline\nline"),
        MemoryError(),
        ZeroDivisionError("division by zero"),
        AssertionError(),
        RuntimeError("it failed\nTraceback (most recent call last):\n  File x\nOSError: no\x1b[31m"),
        LookupError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ],
)
def test_every_error_is_one_or_two_lines(error, capsys):
    with pytest.raises(typer.Exit) as ended, told():
        raise error
    said = capsys.readouterr().err
    assert ended.value.exit_code == 1 and 1 <= len(said.splitlines()) <= 2 and said.startswith("bcos-hf: ")
    assert len(message_of(error).split()) > 1 and "\x1b" not in said and "Traceback" not in said


@pytest.mark.parametrize(
    "arguments, message",
    [(("explain", "a", "b", "--fromat", "png"), "--format"), (("nothing",), "explain-dataset"), (("explain",), "MODEL INPUTS"),
     (("evaluate", "a", "b", "--limit", "x"), "--limit")],
)  # fmt: skip
def test_wrong_usage_is_said_in_a_line(arguments, message):
    said = run(*arguments, status=2).stderr
    assert len(said.splitlines()) == 1 and message in said


def test_a_mistyped_setting_of_a_training_is_said_in_a_line(capsys):
    said = run("train", "text", "--leraning_rate", "1", status=2).stderr
    assert len(said.splitlines()) == 1 and "--learning_rate" in said


INTERRUPTED = """
import importlib.abc, os, signal, sys

class Interrupts(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *others):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
sys.argv = ["bcos-hf"]
import bcos_hf.cli
"""


def test_interrupted_imports_are_quiet():
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 130 and not done.stderr
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # who imports the library alone is left alone
