"""No control character of a label, text, file name or message reaches a terminal, whatever command prints it; JSON says it in full."""

import json
import logging
import re
import sys
from io import StringIO

import numpy as np
import pytest
from conftest import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import BertTokenizerFast
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from typer.testing import CliRunner

from bcos_hf import bcosify
from bcos_hf.cli import app
from bcos_hf.visualization.terminal import HarmlessStream, harmless, harmless_main, harmless_streams


EVIL = "x\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj\u2066\x7f\x85\u2028y"
RAW = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of models whose classes, files and texts all have the name EVIL."""
    place = tmp_path_factory.mktemp("terminal")
    labels = {0: EVIL, 1: f"{EVIL}\nbcos-hf: forged\r", 2: "c"}
    for family, made in (("vit", ViTImageProcessorPil(size={"height": 16, "width": 16})), ("bert", None)):
        standard = tiny(family).float()
        standard.config.id2label, standard.config.label2id = labels, {label: number for number, label in labels.items()}
        if made is None:
            (place / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film"]))
            made = BertTokenizerFast(vocab=str(place / "vocab.txt"))
        for part in (standard, made):
            part.save_pretrained(place / f"plain {family}")
        for part in (bcosify(standard), made):
            part.save_pretrained(place / family)
    for name in (EVIL, f"b{EVIL}"):
        (place / "images" / name).mkdir(parents=True)
        Image.fromarray(np.full((20, 20, 3), 90, dtype=np.uint8)).save(place / "images" / name / f"{EVIL}.png")
    (place / f"{EVIL}.png").write_bytes(b"no image")
    (place / f"{EVIL}.yaml").write_text(f"output_dir: [{EVIL}")
    (place / f"{EVIL}.csv").write_text(f'text,label\n"{EVIL}",0\na film,0\n')
    (place / f"no {EVIL}").mkdir()
    (place / f"no {EVIL}" / "config.json").write_text(json.dumps({"model_type": EVIL}))
    return place


def run(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert not RAW.search(done.output) and "forged\r" not in done.output, done.output  # other \r are of progress bars
    return done


# what is printed, and with which status
COMMANDS = {
    "image": (0, "explain {f}/vit {f}/images --output {t}/out --target c"),
    "html": (0, "explain {f}/vit {f}/images --output {t}/out --format html"),
    "broken image": (1, "explain {f}/vit {f}/{e}.png --output {t}/out"),
    "text": (0, "explain {f}/bert {e} --output {t}/out"),
    "parquet": (0, "explain {f}/bert {e} --output {t}/out --format parquet"),
    "target": (1, "explain {f}/bert a --output {t}/out --target no{e}"),
    "format": (1, "explain {f}/bert a --format {e}"),
    "no model": (1, "explain {f}/no{s}{e} a"),
    "option": (2, "explain {f}/vit a --{e}"),
    "command": (2, "{e}"),
    "data set": (0, "explain-dataset {f}/bert {f}/{e}.csv {t}/{e}"),
    "column": (1, "explain-dataset {f}/bert {f}/{e}.csv {t}/other --input-column {e}"),
    "evaluate": (0, "evaluate {f}/bert {f}/{e}.csv --metric accuracy"),
    "metric": (1, "evaluate {f}/bert {f}/{e}.csv --metric {e}"),
    "convert": (0, "convert {f}/plain{s}vit {t}/{e} --verbose"),
    "again": (1, "convert {f}/plain{s}bert {f}"),
    "import": (1, "import bcos-v2 {f}/{e}.png {t}/{e}"),
    "kind": (1, "import {e} a {t}/b"),
    "train": (1, "train text {f}/{e}.yaml"),
    "task": (1, "train {e}"),
    "push": (1, "push {f}/bert {e}"),
    "space": (0, "demo --model {f}/vit --space {t}/{e}"),
    "no space": (1, "demo --model {f}/{e} --space {t}/space"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_print_no_control_characters(folder, name, tmp_path):
    status, command = COMMANDS[name]
    done = run(*(part.format(f=folder, t=tmp_path, e=EVIL, s=" ") for part in command.split(" ")))
    assert done.exit_code == status, done.output
    assert not any(line.startswith("bcos-hf: forged") for line in done.output.splitlines())


def test_json_says_names_in_full(folder, tmp_path):
    done = run("explain", folder / "vit", folder / "images", "--output", tmp_path / "out", "--target", "0", "--json")
    found = json.loads(done.stdout)["explanations"]
    assert {one["label"] for one in found} == {EVIL} and {one["input"] for one in found} == {
        str(path) for path in folder.glob("images/*/*.png")
    }


@settings(max_examples=50)
@given(st.text(st.characters(codec=None) | st.sampled_from(EVIL + "\r\n\t")))
def test_lines_and_tabs_stay_and_nothing_else_does(text):
    made = harmless(f"a{text}")
    assert (
        not RAW.search(made)
        and "\r" not in made
        and made.count("\t") == text.count("\t")
        and made.count("\n") == text.count("\n")
    )
    assert harmless(made) == made


def test_progress_bars_move_and_names_do_not():
    for written in ("\r 50%", "\n\n", "\x1b[A", "\n", "\r"):
        assert harmless(written) == written
    assert harmless("\r\x1b[A\r") == "\r␛[A␍" and harmless("a\x1b[A") == "a␛[A"


def test_prints_and_logs_are_harmless(monkeypatch):
    raw, logger = StringIO(), logging.getLogger("test_terminal")
    monkeypatch.setattr(sys, "stdout", raw)
    monkeypatch.setattr(sys, "stderr", raw)
    logger.addHandler(handler := logging.StreamHandler())
    with harmless_streams():
        print(EVIL)
        sys.stderr.writelines([EVIL])
        logger.error(EVIL)
        assert isinstance(sys.stdout, HarmlessStream)
    logger.removeHandler(handler)
    assert (
        sys.stdout is raw
        and handler.stream is raw
        and raw.getvalue().count("␛[2J") >= 3
        and not RAW.search(raw.getvalue())
    )


def test_tracebacks_of_scripts_are_harmless(capsys):
    def main():
        raise ValueError(EVIL)

    with pytest.raises(SystemExit, match="1"):
        harmless_main(main)
    found = capsys.readouterr().err
    assert "ValueError: x␛" in found and not RAW.search(found)
