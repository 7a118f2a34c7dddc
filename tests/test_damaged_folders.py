"""A damaged file beside a model is named by every way in which the model is loaded, in Python and in the shell."""

import ast
import re
import shutil
from pathlib import Path

import pytest
from conftest import tiny
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    BertTokenizerFast,
    ConvNextImageProcessorPil,
    pipeline,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from typer.testing import CliRunner

import bcos_hf
from bcos_hf import bcosify
from bcos_hf.cli import app
from bcos_hf.data.image_inputs import image_processor, output_size
from bcos_hf.models import load_saved
from bcos_hf.models.bcos_processors import checked_processor, saved_processor
from bcos_hf.space.loading import load


ROOT = Path(bcos_hf.__file__).parents[1]
NO_JSON = {
    "empty": b"",
    "cut": None,
    "list": b"[]",
    "null": b"null",
    "bytes": b"\xff\xfe\x00",
    "nested": b"[" * 100_000,
}
# file -> the model that it lies beside, and what it may hold instead of what was saved
DAMAGES = {
    "config.json": (
        "bert",
        NO_JSON
        | {
            "object": b"{}",
            "type": b'{"model_type": 5}',
            "field": b'{"model_type": "bcos_bert", "hidden_size": "wide"}',
        },
    ),
    "generation_config.json": ("gpt2", NO_JSON),
    "model.safetensors": ("vit", NO_JSON),
    "model.safetensors.index.json": ("bert", NO_JSON),
    "tokenizer.json": ("bert", NO_JSON | {"object": b"{}", "model": b'{"model": {"type": "none"}}'}),
    "tokenizer_config.json": ("bert", NO_JSON),
    "preprocessor_config.json": ("vit", NO_JSON),
}
# what transformers reads before anything of ours does, or what is not read at all
ALONE = {("config.json", how): ("AutoModel", "pipeline") for how in ("null", "nested", "type", "field")}
ALONE |= {("tokenizer.json", "model"): ("AutoModel", "pipeline", "load_saved", "bcosify")}
CASES = [(file, how) for file, (_, hows) in DAMAGES.items() for how in hows]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("whole")
    (place / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film"]))
    tokenizer = BertTokenizerFast(vocab=str(place / "vocab.txt"))
    beside = {"bert": tokenizer, "gpt2": tokenizer, "vit": ViTImageProcessorPil(size={"height": 16, "width": 16})}
    for family, processor in beside.items():
        standard = tiny(*(("gpt2", "causal") if family == "gpt2" else (family,))).float()
        options = {"max_shard_size": "10KB"} if family == "bert" else {}
        for name, model in ((f"plain {family}", standard), (family, bcosify(standard))):
            model.save_pretrained(place / name, **options)
            processor.save_pretrained(place / name)
    return place


def damage(folder, place, family, file, content):
    """A copy of a folder with something else, a half or nothing (False) in a file."""
    shutil.copytree(folder / family, place)
    whole = (place / file).read_bytes()
    (place / file).unlink()
    if content is not False:
        (place / file).write_bytes(whole[: len(whole) // 2] if content is None else content)


PROGRESS = re.compile(r"%\||\[[\d:]+, .*/s\]")


def ways(source, plain, family):
    """All ways to load a folder: of B-cos models, and of a standard one."""
    task = (
        "bcos-image-explanation"
        if family == "vit"
        else "text-generation"
        if family == "gpt2"
        else "text-classification"
    )
    made = {
        "AutoModel": lambda: AutoModel.from_pretrained(source),
        "load_saved": lambda: load_saved(source),
        "pipeline": lambda: pipeline(task, str(source)),
        "bcosify": lambda: bcosify(plain),
    }
    if family != "gpt2":
        made["app"] = lambda: load(source)
    for words in (
        ["explain", source, "a"],
        ["push", source, "a/b"],
        ["convert", plain, f"{plain}-new"],
        ["evaluate", source, source.parent / "a.csv"],
    ):

        def run(words=words):
            done = CliRunner().invoke(app, [str(word) for word in words])
            lines = [
                line for line in done.output.replace("\r", "\n").splitlines() if line and not PROGRESS.search(line)
            ]
            assert done.exit_code == 1
            assert len(lines) <= 2, lines
            raise ValueError(done.output)

        made[words[0]] = run
    return made


@pytest.mark.parametrize("file, how", CASES)
def test_damaged_files_are_named(folder, tmp_path, file, how):
    family, hows = DAMAGES[file]
    (tmp_path / "a.csv").write_text("text,label\na film,0\n")
    for name in (family, f"plain {family}"):
        damage(folder, tmp_path / name, name, file, hows[how])
    said = []
    for name, way in ways(tmp_path / family, tmp_path / f"plain {family}", family).items():
        if name in ALONE.get((file, how), ()):
            continue
        try:
            way()
            said.append(f"{name}: nothing was raised")
        except (ValueError, OSError) as error:
            named = str(tmp_path) in str(error) or file in str(error)
            if not named:
                said.append(f"{name}: {error}")
        except Exception as error:
            said.append(f"{name}: {type(error).__name__} {error}")
    assert not said, "\n".join(said)


def test_a_folder_without_a_configuration_is_refused(folder, tmp_path):
    for family in ("bert", "vit"):
        for name in (family, f"plain {family}"):
            damage(folder, tmp_path / name, name, "config.json", False)
        for way in ways(tmp_path / family, tmp_path / f"plain {family}", family).values():
            with pytest.raises((ValueError, OSError), match=r"config\.json"):
                way()


def test_a_model_in_a_subfolder_is_loaded(folder):
    assert type(load_saved(folder / "bert")).from_pretrained(folder, subfolder="bert")


def test_a_configuration_alone_is_read_or_refused(folder, tmp_path):
    config = type(AutoConfig.from_pretrained(folder / "bert"))
    for content in (b"", b"{", b"{}", b"[]", b"null"):
        (tmp_path / "config.json").write_bytes(content)
        for cls in (config,) if content == b"null" else (AutoConfig, config):  # the former is transformers' own
            with pytest.raises((ValueError, OSError), match=str(tmp_path)):
                cls.from_pretrained(tmp_path)


def test_processors_are_loaded_through_one_door(folder, tmp_path):
    assert saved_processor(AutoTokenizer, folder / "bert").vocab_size == 7
    with pytest.raises(OSError, match="found none"):
        saved_processor(AutoImageProcessor, folder / "bert")
    for path in (*(ROOT / "bcos_hf").rglob("*.py"), *(ROOT / "recipes").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if path.name != "bcos_bounds.py" and isinstance(node, ast.Attribute) and node.attr == "from_pretrained":
                assert ast.unparse(node.value) not in (
                    "AutoTokenizer",
                    "AutoImageProcessor",
                    "AutoProcessor",
                    "AutoConfig",
                ), path


def test_processors_of_huge_images_are_refused_where_they_are_used(folder):
    huge = {"height": 30_000, "width": 30_000}
    made = [ViTImageProcessorPil(size=huge), ConvNextImageProcessorPil(size={"shortest_edge": 224}, crop_pct=0.001)]
    for processor in made:
        for use in (
            checked_processor,
            output_size,
            lambda one: pipeline("bcos-image-explanation", str(folder / "vit"), image_processor=one),
        ):
            with pytest.raises(ValueError, match="4,096"):
                use(processor)
    with pytest.raises(ValueError, match="4,096"):
        image_processor(folder / "vit", AutoConfig.from_pretrained(folder / "vit"), size=30_000)


def test_a_long_list_is_refused_before_its_values_are_looked_at(folder):
    config = type(AutoConfig.from_pretrained(folder / "bert"))
    for given in ([2.0] * 10_001, ["never looked at"] * 10_001):
        with pytest.raises(ValueError, match="b: expected at most 10,000 values"):
            config(b=given)
        with pytest.raises(ValueError, match="b: expected at most 10,000 values"):
            bcosify(folder / "plain bert", b=given)
