"""The app: what visitors may send, what its functions answer, and the Space folder that runs it."""

import asyncio
import re
import runpy
import shutil
import struct
import sys
import zlib
from copy import deepcopy
from dataclasses import replace
from importlib.metadata import requires, version
from io import BytesIO

import numpy as np
import pytest
import torch
import transformers
import yaml
from conftest import EMBEDDERS, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement
from PIL import Image
from transformers import BertTokenizerFast
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from typer.testing import CliRunner

from bcos_hf import bcosify
from bcos_hf.baselines import input_x_gradient
from bcos_hf.cli import app
from bcos_hf.space import build, write_space
from bcos_hf.space.comparing import integrated_gradients
from bcos_hf.space.examples import PROMPTS, TEXTS, examples_in
from bcos_hf.space.explaining import comparison_page, picture_page, prompts_page, text_page
from bcos_hf.space.inputs import CHARACTERS, MEGABYTES, checked_class, checked_picture, checked_prompts, checked_text, uploaded
from bcos_hf.space.loading import load
from bcos_hf.space.tabs import answer


SCRIPT = "<script>alert(1)</script>"
KINDS = {"image": "vit", "text": "bert", "clip": "clip"}


def file_of(picture, kind="PNG", **options):
    picture.save(made := BytesIO(), kind, **options)
    return made.getvalue()


def claims(width, height):
    """A PNG whose header says how large it is, and that has no pixels."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b""), (b"IEND", b""))
    parts = [struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8))
PNG = file_of(PHOTO)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A B-cos model of each kind, and standard ones of pictures to compare with."""
    folder = tmp_path_factory.mktemp("space")
    sizes = deepcopy(EMBEDDERS["clip"])
    sizes["text_config"]["eos_token_id"] = 3  # [SEP] of the tokenizer below
    clip = transformers.AutoModel.from_config(transformers.AutoConfig.for_model("clip", **sizes)).eval()
    for name, model in {"vit": tiny("vit").float(), "bert": tiny("bert").float(), "clip": clip}.items():
        bcosify(model).save_pretrained(folder / name)
    tiny("vit").float().save_pretrained(folder / "plain")
    tiny("resnet").float().save_pretrained(folder / "plain-resnet")
    tiny("vit", num_labels=5).float().save_pretrained(folder / "others")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "dull", "<", ">", "/", "script", "alert"]))
    for name, longest in (("bert", 512), ("clip", 12)):
        BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=longest).save_pretrained(folder / name)
    for name in ("vit", "clip", "plain", "plain-resnet", "others"):
        ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def loaded(folder):
    return {kind: load(folder / name) for kind, name in KINDS.items()}


def maps(page):
    return re.findall(r'src="(data:image/png;base64,[^"]+)"', page)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Choose a picture"),
        (b"%PDF-1.4\n1 0 obj<<>>endobj\n", "this file is none, whatever its name says"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "this file is none"),
        (PNG + bytes(MEGABYTES * 1_000_000), "at most 10 MB"),
        (claims(8_000, 6_000), "at most 40 megapixels, got 8,000 × 6,000"),
        (claims(10_000, 10_000), "at most 40 megapixels"),
        (claims(60_000, 60_000), "at most 40 megapixels"),
        (PNG[: len(PNG) // 2], "damaged or cut off"),
        (file_of(PHOTO, "JPEG")[:-200], "damaged or cut off"),
        (claims(20, 20), "damaged or cut off"),
    ],
)
def test_a_file_that_is_no_picture_or_too_large_a_one_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        checked_picture(content)


def test_pictures_are_upright_and_in_rgb():
    turned = PHOTO.getexif()
    turned[0x0112] = 6
    assert checked_picture(file_of(PHOTO, "JPEG", exif=turned)).size == (20, 24)
    for mode in ("L", "LA", "P", "RGBA", "I;16", "1"):
        made = checked_picture(file_of(PHOTO.convert("L").convert(mode) if mode == "I;16" else PHOTO.convert(mode)))
        assert made.mode == "RGB" and made.size == (24, 20)
    assert checked_picture(file_of(PHOTO, "GIF", save_all=True, append_images=[PHOTO.rotate(180)])).size == (24, 20)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, len(PNG)), st.binary(max_size=8), st.integers(0, len(PNG)))
def test_damaged_files_end_in_a_picture_or_a_refusal(start, put, stop):
    try:
        assert checked_picture(PNG[:start] + put + PNG[stop:]).mode == "RGB"
    except ValueError as refused:
        assert "/" not in str(refused)


def test_only_files_of_the_upload_folder_are_opened(tmp_path):
    inside, outside = tmp_path / "uploads", tmp_path / "secret.png"
    inside.mkdir()
    (inside / "picture.png").write_bytes(PNG)
    outside.write_bytes(PNG)
    (inside / "link.png").symlink_to(outside)
    with open(inside / "large.png", "wb") as large:
        large.truncate(50_000_000)
    assert uploaded(None, inside) is None
    assert uploaded({"path": str(inside / "picture.png")}, inside) == PNG
    assert len(uploaded({"path": str(inside / "large.png")}, inside)) == MEGABYTES * 1_000_000 + 1  # and checked_picture refuses it
    paths = [outside, inside / ".." / "secret.png", inside / "link.png", inside, inside / "missing.png", tmp_path / "missing.png", None]
    for given_file in [*({"path": str(path)} for path in paths), {"path": None}, {}, str(inside / "picture.png"), 3, [PNG]]:
        with pytest.raises(ValueError, match=r"^Expected an uploaded picture\.$"):
            uploaded(given_file, inside)


def test_texts_prompts_and_classes_are_checked():
    for text in (None, "", " \n", 3):
        with pytest.raises(ValueError, match="Write a text"):
            checked_text(text)
    assert checked_text("a" * CHARACTERS) == "a" * CHARACTERS
    with pytest.raises(ValueError, match="at most 5,000 characters, got 100,000"):
        checked_text("a" * 100_000)
    assert checked_prompts(" a cat \n\na dog\na cat") == ["a cat", "a dog"]
    with pytest.raises(ValueError, match="at most 9 prompts, one a line, got 10"):
        checked_prompts("\n".join(map(str, range(10))))
    assert [checked_class(given_class, 3) for given_class in (None, -1, 0, 2)] == [None, None, 0, 2]
    assert checked_class("mean", 3, ("mean",)) == "mean"
    for number in (3, -2, True, "0", 0.5, [], {}, "mean"):
        with pytest.raises(ValueError, match="one of the 3 classes"):
            checked_class(number, 3)


def test_maps_differ_by_class_and_contrast(loaded):
    image, text = loaded["image"], loaded["text"]
    pages = [picture_page(image, PNG, *chosen) for chosen in ((0,), (1,), (2,), (0, 1), (0, "mean"))]
    assert len({maps(page)[-1] for page in pages}) == len(pages) and len({maps(page)[0] for page in pages}) == 1  # the picture is the same
    assert maps(picture_page(image, PNG)) == maps(picture_page(image, PNG, int(image.model.explain(_pixels(image)).targets[0, 0])))
    assert len({text_page(text, "a dull film", *chosen) for chosen in ((0,), (1,), (2,), (0, 1), (0, "mean"))}) == 5
    for page, content in ((picture_page, PNG), (text_page, "a film")):
        with pytest.raises(ValueError, match="two different classes"):
            page(loaded["image" if page is picture_page else "text"], content, 1, 1)


def _pixels(one):
    return one.processor(PHOTO, return_tensors="pt")["pixel_values"]


def test_prompts_have_a_map_each(loaded):
    pages = [prompts_page(loaded["clip"], PNG, "a film\na dull film\nscript", relative) for relative in (False, True)]
    found = [maps(page) for page in pages]
    assert all(page.count("<figure>") == len(set(made)) == 4 for made, page in zip(found, pages, strict=True))  # the picture and three maps
    assert found[0][0] == found[1][0] and found[0][1:] != found[1][1:]
    assert maps(prompts_page(loaded["clip"], PNG, "a film", True)) == maps(prompts_page(loaded["clip"], PNG, "a film"))  # the mean of one prompt is itself


def test_a_long_text_is_cut_off_and_the_page_says_so(loaded):
    assert "The model reads the first 40 of 102 tokens" in text_page(loaded["text"], "a film " * 50)
    assert "The model reads" not in text_page(loaded["text"], "a film")


def test_integrated_gradients_become_complete(folder):
    model, pixel_values = tiny("vit"), torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    coarse, fine = (integrated_gradients(model, pixel_values, 1, steps) for steps in (2, 100))
    assert fine.residual.abs() < coarse.residual.abs() / 50  # the error of the midpoint rule falls with the square of the steps
    halves = [input_x_gradient(model, 1, pixel_values=part * pixel_values).contributions / part / 2 for part in (0.25, 0.75)]
    torch.testing.assert_close(coarse.contributions, sum(halves))


def test_nothing_a_visitor_writes_becomes_markup(loaded):
    evil = f"a {SCRIPT} <img src=x onerror=alert(2)> film"
    model = deepcopy(loaded["image"].model)
    model.config.id2label = {0: SCRIPT, 1: evil, 2: "none"}
    named = replace(loaded["image"], model=model)
    for page in (
        text_page(loaded["text"], evil),
        prompts_page(loaded["clip"], PNG, evil),
        picture_page(named, PNG, 0, 1),
        comparison_page(named, named, PNG, 0),
    ):
        assert "<script" not in page and "<img src=x" not in page and "&lt;" in page


def functions_of(*models, **options):
    """The app's functions by name. It is built within an event loop: outside one Gradio makes a loop for every app, and closes none."""

    async def built():
        return build(*models, **options)

    return {function.api_name: function for function in asyncio.run(built()).fns.values() if function.fn is not None}


@pytest.fixture
def upload(tmp_path, monkeypatch):
    """A function that stores content where Gradio stores uploads."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    (tmp_path / "uploads").mkdir()

    def stored(content, name="picture.png"):
        (tmp_path / "uploads" / name).write_bytes(content)
        return {"path": str(tmp_path / "uploads" / name)}

    return stored


@pytest.mark.parametrize("kind", KINDS)
def test_the_app_of_each_kind_answers(kind, folder, upload):
    functions = functions_of([folder / KINDS[kind]])
    explain = functions[f"explain_{kind}"]
    assert {name for name in functions if name.startswith("explain")} == {f"explain_{kind}"}
    assert not explain.preprocess and len(explain.outputs) == 1  # nothing opens a file before it is checked
    first, more = ("a dull film", [-1, -1]) if kind == "text" else (upload(PNG), ["a film\na dull film", False] if kind == "clip" else [-1, "mean"])
    good = explain.fn(first, *more)
    assert "bcos" in good and 'role="alert"' not in good and (kind == "text" or maps(good))
    # what is refused, or not there yet, takes the place of the result
    bad = "a" * 100_000 if kind == "text" else upload(b"%PDF-1.4\n", "renamed.png")
    refused, empty = explain.fn(bad, *more), explain.fn(None, *more)
    assert 'role="alert"' in refused and 'class="hint"' in empty
    assert not maps(refused) and "sum of" not in refused and not maps(empty) and "sum of" not in empty
    assert explain.fn(first, *more) == good  # and the app goes on


def test_the_app_compares_with_a_conventional_model(folder, upload):
    for rival, count in (("plain", 4), ("plain-resnet", 5)):  # Grad-CAM explains convolutional networks
        functions = functions_of([folder / name for name in KINDS.values()], folder / rival)
        assert {name for name in functions if name.startswith("explain")} == {"explain_image", "explain_text", "explain_clip", "explain_compare"}
        assert functions["explain_compare"].fn(upload(PNG), -1).count("<figure>") == count


def test_paths_are_no_inputs_and_unforeseen_errors_are_not_shown(tmp_path, caplog):
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "uploads").mkdir()
    asked = []
    page = answer(lambda *inputs: asked.append(inputs) or "shown", folder=tmp_path / "uploads")
    assert "Expected an uploaded picture." in page({"path": str(tmp_path / "secret.png")}, 0) and not asked

    def broken(*_):
        raise RuntimeError(str(tmp_path))

    shown = answer(broken)("a film")
    assert 'role="alert"' in shown and str(tmp_path) not in shown and "could not be explained" in shown


def test_models_that_do_not_fit_the_app_are_refused(folder):
    for models, rival, message in (
        ([], None, "one or more, each of another kind"),
        ([folder / "vit", folder / "vit"], None, "one or more, each of another kind"),
        ([folder / "plain"], None, "expected a B-cos model.*bcos-hf convert"),
        ([folder / "vit"], folder / "others", "with the classes of the B-cos one"),
        ([folder / "bert"], folder / "plain", "with the classes of the B-cos one"),
    ):
        with pytest.raises(ValueError, match=message):
            build(models, rival)
    with pytest.raises(ValueError, match="expected a folder of pictures"):
        build([folder / "vit"], examples=folder / "missing")


def test_examples(tmp_path):
    for name in ("b.png", "a.JPG", "notes.pdf"):
        (tmp_path / name).write_bytes(PNG)
    (tmp_path / "texts.txt").write_text("one\n\ntwo\n")
    made = examples_in(tmp_path)
    assert [file.name for file in made.pictures] == ["a.JPG", "b.png"] and made.texts == ["one", "two"] and made.prompts == PROMPTS
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "example.png").write_bytes(PNG)
    made = examples_in(None, [str(tmp_path / "model"), "some/id"])
    assert made.pictures == [tmp_path / "model" / "example.png"] and made.texts == TEXTS


def test_write_space(folder, tmp_path, monkeypatch):
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "photo.png").write_bytes(PNG)
    space = tmp_path / "space"
    write_space(space, [folder / "vit", folder / "bert"], folder / "plain", tmp_path / "examples", title="Why: 'this' # class?")
    _, header, _ = (space / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    said = yaml.safe_load(header)
    assert said["sdk"] == "gradio" and (space / said["app_file"]).is_file() and said["title"] == "Why: 'this' # class?" and "models" not in said
    assert len(said["short_description"]) <= 60  # the Hub's limit
    assert {"torch", "transformers", "pillow"} <= {Requirement(line).name for line in (space / "requirements.txt").read_text().splitlines()}
    assert (space / "bcos_hf" / "hub" / "usage_image.txt").is_file() and not list(space.rglob("__pycache__"))
    called = {}
    monkeypatch.setattr("bcos_hf.space.serve", lambda **arguments: called.update(arguments))
    runpy.run_path(str(space / "app.py"))
    assert all(str(path).startswith(str(space)) for path in [*called["models"], called["conventional"], called["examples"]])
    assert {"explain_image", "explain_text", "explain_compare"} <= set(functions_of(**called))
    assert str(folder) not in (space / "app.py").read_text() + (space / "README.md").read_text()


def test_a_space_takes_what_a_model_needs_and_pins_what_it_requires(folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(folder / "bert", model)
    needed = {file.name for file in model.iterdir()}
    (model / "example.png").write_bytes(PNG)
    for name in (".env", "secrets.json", "notes.txt", "train.py", "all_results.json", "trainer_state.json", "training_args.bin", "optimizer.pt", "token"):
        (model / name).write_text("private")
    for name in ("checkpoint-1", "runs", ".git"):
        shutil.copytree(folder / "bert", model / name)
    write_space(tmp_path / "space", [model], model)
    for name in ("model", "model-2"):
        assert {file.name for file in (tmp_path / "space" / name).iterdir()} == {*needed, "example.png"} - {"README.md"}
    pinned = [Requirement(line) for line in (tmp_path / "space" / "requirements.txt").read_text().splitlines()]
    assert all([one.operator for one in requirement.specifier] == ["=="] for requirement in pinned)
    wanted = {Requirement(line).name for line in requires("bcos_hf") if "extra ==" not in line}
    assert {requirement.name for requirement in pinned} == wanted and all(requirement.specifier.contains(version(requirement.name)) for requirement in pinned)


def test_a_space_names_models_of_the_hub(tmp_path):
    write_space(tmp_path / "space", ["some/bcos-resnet"])
    assert yaml.safe_load((tmp_path / "space" / "README.md").read_text(encoding="utf-8").split("---\n")[1])["models"] == ["some/bcos-resnet"]
    assert "serve(models=['some/bcos-resnet'], conventional=None, examples=None)" in (tmp_path / "space" / "app.py").read_text()


def test_a_space_is_written_whole_or_not_at_all(folder, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    for place, models, more, message in (
        ("full", [folder / "vit"], {}, "a new or empty folder"),
        ("new", [], {}, "one or more models"),
        ("new", [folder / "missing"], {}, "Repo id"),
        ("new", [folder / "vit"], {"examples": tmp_path / "missing"}, "missing"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            write_space(tmp_path / place, models, **more)
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["full", "full/mine.txt"]
    assert (tmp_path / "full" / "mine.txt").read_text() == "kept"


def test_the_command(folder, tmp_path, monkeypatch):
    def run(*arguments):
        return CliRunner().invoke(app, ["demo", *map(str, arguments)])

    done = run("--image-model", folder / "vit", "--text-model", folder / "bert", "--space", tmp_path / "space")
    assert done.exit_code == 0 and "python app.py" in done.stdout and (tmp_path / "space" / "app.py").is_file()
    again = run("--model", folder / "vit", "--space", tmp_path / "space")
    assert again.exit_code == 1 and "--space: expected a new or empty folder" in again.stderr
    monkeypatch.setitem(sys.modules, "gradio", None)
    without = run("--model", folder / "vit")
    assert without.exit_code == 1 and "pip install 'bcos_hf[demo]'" in without.stderr
