"""A data set of explanations: what is in it adds up, whatever the batches and however often it was interrupted, and others' files are left alone."""

import io
import json

import numpy as np
import pytest
import torch
from conftest import tiny
from datasets import Array2D, ClassLabel, Dataset, Image, IterableDataset, load_dataset
from loopback_hub import loopback_hub
from PIL import Image as Pillow
from test_hub import run_script
from transformers import BertTokenizerFast, ViTImageProcessorPil

from bcos_hf import bcosify
from bcos_hf.data import class_numbers, explain_dataset
from bcos_hf.data.text import TextColumns
from bcos_hf.hub.card_text import split_card
from bcos_hf.hub.explanation_folder import whole_splits


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "good", "bad", "##ly", "."]
NAMES = ["LABEL_0", "LABEL_1", "LABEL_2"]
KINDS = ("image", "text")


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def processors(tmp_path_factory):
    vocabulary = tmp_path_factory.mktemp("words") / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS))
    return {"image": ViTImageProcessorPil(size={"height": 16, "width": 16}), "text": BertTokenizerFast(vocab=str(vocabulary))}


@pytest.fixture(scope="module")
def models():
    return {"image": bcosify(tiny("vit"), b=1.5, keep_biases=True), "text": bcosify(tiny("bert"), keep_biases=True, logit_bias="auto")}


def picture(seed, size=(20, 14)):
    file = io.BytesIO()
    Pillow.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(file, "png")
    return {"bytes": file.getvalue(), "path": None}


def rows(kind, count=7, broken=()):
    """Labelled rows, those of `broken` without a picture or text."""
    labels = [i % 3 for i in range(count)]
    if kind == "image":
        values = [{"bytes": b"%PDF", "path": None} if i in broken else picture(i) for i in range(count)]
        return Dataset.from_dict({"image": values, "label": labels}).cast_column("image", Image()).cast_column("label", ClassLabel(names=NAMES))
    values = [None if i in broken else " ".join(["a", "goodly", "bad", "film"][: 1 + i % 4]) for i in range(count)]
    return Dataset.from_dict({"text": values, "label": labels, "id": [str(i) for i in range(count)]}).cast_column("label", ClassLabel(names=NAMES))


def read(folder):
    return load_dataset(str(folder), split="train").with_format("numpy")


def same(one, other):
    for name in one.column_names:
        for a, b in zip(one[name], other[name], strict=True):
            assert a == pytest.approx(b, abs=1e-6) if isinstance(a, float | np.floating) else np.array_equal(a, b) or np.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_contributions_and_constant_are_the_logit_and_those_of_one_row(kind, models, processors, tmp_path):
    model, processor, data = models[kind], processors[kind], rows(kind)
    report = explain_dataset(model, processor, data, tmp_path / "out", batch_size=3, rows_per_file=4, target="label")
    assert (report["rows"], report["skipped"], len(report["files"])) == (7, 0, 2)
    made = read(tmp_path / "out")
    assert list(made["index"]) == list(range(7)) and list(made["target"]) == list(made["label"]) == data["label"]
    assert made.features["target"] == made.features["prediction"] == made.features["label"] == ClassLabel(names=NAMES)
    for i, row in enumerate(made):
        given = data[i]
        inputs = processor(given["image"] if kind == "image" else given["text"], return_tensors="pt")
        alone = model.explain(**inputs, targets=given["label"])
        assert np.sum(row["contributions"], dtype=float) + row["constant"] == pytest.approx(row["logit"], abs=1e-5)
        assert row["logit"] == pytest.approx(alone.logits[0, given["label"]].item(), abs=1e-5) and row["prediction"] == alone.logits.argmax()
        assert row["probability"] == pytest.approx(1 / (1 + np.exp(-row["logit"])), abs=1e-6) and abs(row["residual"]) < 1e-6
        assert np.allclose(row["contributions"], alone.contributions[0, 0].numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_neither_batches_nor_files_nor_streaming_nor_broken_rows_change_a_row(kind, models, processors, tmp_path):
    model, processor, data = models[kind], processors[kind], rows(kind, broken=(0, 4))
    first = explain_dataset(model, processor, data, tmp_path / "one", batch_size=1)
    assert (first["rows"], first["skipped"]) == (5, 2)
    whole = read(tmp_path / "one")
    assert list(whole["index"]) == [1, 2, 3, 5, 6]
    second = explain_dataset(model, processor, data, tmp_path / "two", batch_size=4, rows_per_file=2)
    third = explain_dataset(model, processor, data.to_iterable_dataset(), tmp_path / "three", batch_size=2, rows_per_file=1)
    assert len(second["files"]) == 4 and len(third["files"]) == 7 and third["skipped"] == 2
    same(whole, read(tmp_path / "two"))
    same(whole, read(tmp_path / "three"))


def test_pictures_are_those_the_model_saw(models, processors, tmp_path):
    explain_dataset(models["image"], processors["image"], rows("image"), tmp_path / "out")
    made = load_dataset(str(tmp_path / "out"), split="train")
    assert made.features["contributions"] == Array2D((16, 16), "float32") and made.features["image"] == Image()
    for shown, given in zip(made["image"], rows("image")["image"], strict=True):
        assert np.array_equal(np.asarray(shown), np.asarray(given.resize((16, 16), Pillow.BILINEAR)))


def test_texts_keep_their_tokens_and_long_ones_are_cut_where_the_model_ends(models, processors, tmp_path):
    data = Dataset.from_dict({"premise": ["a goodly film", "bad " * 99], "hypothesis": ["good", "."], "x": [1.0, 2.0]})
    explain_dataset(models["text"], processors["text"], data, tmp_path / "out", columns=TextColumns("premise", "hypothesis", None), dtype="float16", target=2)
    made = read(tmp_path / "out")
    assert list(made[0]["tokens"]) == ["[CLS]", "a", "good", "ly", "film", "[SEP]", "good", "[SEP]"] and made[0]["second_text"] == "good"
    assert [len(row) for row in made["contributions"]] == [8, 40] and "label" not in made.column_names and set(made["target"]) == {2}
    assert made.features["contributions"].feature.dtype == "float16"


def interrupted(monkeypatch, model, after):
    """`model.explain` raises KeyboardInterrupt from its call number `after` on."""
    calls, explain = [], model.explain

    def stopping(**inputs):
        calls.append(1)
        if len(calls) > after:
            raise KeyboardInterrupt
        return explain(**inputs)

    monkeypatch.setattr(model, "explain", stopping, raising=True)
    return calls


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("streaming", [False, True])
def test_an_interrupted_run_goes_on_and_ends_with_the_same_files(kind, streaming, models, processors, tmp_path, monkeypatch):
    model, data = models[kind], rows(kind, 9, broken=(1,))
    data = data.to_iterable_dataset() if streaming else data
    given = dict(batch_size=2, rows_per_file=4)
    explain_dataset(model, processors[kind], data, tmp_path / "whole", **given)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted(patch, model, after=3)  # two batches of the first shard, one of the second
        explain_dataset(model, processors[kind], data, tmp_path / "parts", **given)
    assert [path.name for path in (tmp_path / "parts" / "data").iterdir()] == ["train-00000.parquet"]
    with pytest.raises(RuntimeError, match=r"splits \['train'\] are not finished"):
        whole_splits(tmp_path / "parts")
    with monkeypatch.context() as patch:
        calls = interrupted(patch, model, after=99)
        explain_dataset(model, processors[kind], data, tmp_path / "parts", **given)
        assert len(calls) == 3  # of the second and third shard alone
        explain_dataset(model, processors[kind], data, tmp_path / "parts", **given)
        assert len(calls) == 3  # nothing is made again
        (tmp_path / "parts" / "data" / "train-00001.parquet").unlink()
        explain_dataset(model, processors[kind], data, tmp_path / "parts", **given)
        assert len(calls) == 6  # from the first missing shard on
    for path in (tmp_path / "whole").rglob("*.*"):
        other = tmp_path / "parts" / path.relative_to(tmp_path / "whole")
        assert path.name == "README.md" or path.is_dir() or path.read_bytes() == other.read_bytes()


def test_rows_are_read_and_written_in_turn(models, processors, tmp_path, monkeypatch):
    """Never more rows are read than one batch beyond those that are explained: memory does not grow."""
    seen, explained = [], []

    def watched():
        for row in rows("text", 20):
            seen.append(len(explained))
            yield row

    data = IterableDataset.from_generator(watched, features=rows("text", 1).features)
    explain = models["text"].explain
    monkeypatch.setattr(models["text"], "explain", lambda **inputs: explained.append(len(inputs["input_ids"])) or explain(**inputs))
    explain_dataset(models["text"], processors["text"], data, tmp_path / "out", batch_size=2, rows_per_file=6)
    assert explained == [2] * 10 and all(number - 2 * batches_done <= 3 for number, batches_done in enumerate(seen))


def test_what_was_made_from_something_else_is_refused_and_stays(models, processors, tmp_path):
    model, processor, data = models["text"], processors["text"], rows("text")
    explain_dataset(model, processor, data, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    changed = bcosify(tiny("bert"), keep_biases=True, logit_bias="auto")
    with torch.no_grad():
        changed.classifier.weight[0, 0] += 1
    other = BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)}, do_lower_case=False)
    for what, arguments in {
        "model": (changed, processor, data),
        "processor": (model, other, data),
        "dataset": (model, processor, data.select([1, 0])),
        "target": (model, processor, data, "label"),
    }.items():
        with pytest.raises(ValueError, match=f"expected the {what} that its split 'train' was explained with, got another. Nothing was changed"):
            explain_dataset(*arguments[:3], tmp_path, target=(*arguments, None)[3])
        with pytest.raises(ValueError, match=what) if what != "dataset" else pytest.raises(ValueError, match="expected letters"):
            explain_dataset(*arguments[:3], tmp_path, target=(*arguments, None)[3], split="test" if what != "dataset" else "../x")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    (tmp_path / "bcos_explanations_train.json").unlink()
    with pytest.raises(ValueError, match=r"train-00000.parquet: expected bcos_explanations_train.json"):
        explain_dataset(model, processor, data, tmp_path)


def test_bad_arguments(models, processors, tmp_path):
    model, processor, data = models["text"], processors["text"], rows("text")
    for message, options in {
        "rows_per_file >= 1": {"rows_per_file": 0},
        "batch_size >= 1": {"batch_size": 0},
        "dtype of": {"dtype": "int8"},
        "target: expected a column": {"target": "zebra"},
        "or its number, got 3": {"target": 3},
    }.items():
        with pytest.raises(ValueError, match=message):
            explain_dataset(model, processor, data, tmp_path, **options)
    with pytest.raises(TypeError, match="expected a B-cos model"):
        explain_dataset(tiny("bert"), processor, data, tmp_path)
    with pytest.raises(ValueError, match="at least one row"):
        explain_dataset(model, processor, data.select([]), tmp_path)
    hidden = data.cast_column("label", ClassLabel(names=NAMES)).map(lambda row: {"label": -1})
    with pytest.raises(ValueError, match="expected a label in every row, found -1"):
        explain_dataset(model, processor, hidden, tmp_path, target="label")
    assert not list(tmp_path.glob("*.json")) and not list(tmp_path.rglob("*.parquet"))
    assert explain_dataset(model, processor, hidden, tmp_path)["rows"] == 7 and set(read(tmp_path)["label"]) == {-1}


def test_labels_are_the_models_by_name():
    config = tiny("bert", id2label={0: "bad", 1: "good", 2: "so"}).config
    assert [class_numbers(ClassLabel(names=["good", "bad"]), config)(value) for value in (0, 1, None, -1)] == [1, 0, -1, -1]
    assert class_numbers(None, config)("so") == 2 and class_numbers(None, config)(1.0) == 1
    assert class_numbers(ClassLabel(names=["x", "y"]), tiny("bert").config)(1) == 1  # a model whose classes have no names
    for feature, value in ((ClassLabel(names=["good", "ugly"]), 0), (None, "ugly"), (None, 3), (None, 0.5)):
        with pytest.raises(ValueError, match="label"):
            class_numbers(feature, config)(value)


PUSH = """
import json, os
os.environ["HF_DATASETS_OFFLINE"] = "0"
from pathlib import Path
from bcos_hf.hub import push_explanations
from huggingface_hub import HfApi, hf_hub_download
from datasets import load_dataset
address = push_explanations("out", "org/explained")
rows = load_dataset("org/explained")
found = {"address": address, "size": rows["train"][0]["image"].size, **{split: part["index"][:] for split, part in rows.items()}}
Path("found.json").write_text(json.dumps(found))
api, card = HfApi(), Path(hf_hub_download("org/explained", "README.md", repo_type="dataset")).read_text()
Path("first.md").write_text(card)
card = card.replace("license: other", "license: mit").replace("---\\n\\n", "---\\n\\nA person wrote this.\\n\\n", 1)
for path, content in {"README.md": card.encode(), "data/train-00003.parquet": Path("out/data/train-00000.parquet").read_bytes()}.items():
    api.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id="org/explained", repo_type="dataset")
push_explanations("out", "org/explained")
Path("out/data/train-00001.parquet").unlink()
try:
    push_explanations("out", "org/never")
except RuntimeError as error:
    assert "expected 2 rows, found no file" in str(error), error
else:
    raise SystemExit("pushed an incomplete folder")
"""


def test_pushed_explanations_load_by_id_and_a_persons_text_stays(models, processors, tmp_path):
    folder = tmp_path / "out"
    for split, count in (("train", 5), ("test", 3)):
        explain_dataset(models["image"], processors["image"], rows("image", count), folder, rows_per_file=2, split=split, source="org/pictures")
    shards = {f"data/{path.name}": path.read_bytes() for path in (folder / "data").iterdir()}
    with loopback_hub() as hub:
        run_script(tmp_path, hub.endpoint, PUSH)
        found = json.loads((tmp_path / "found.json").read_text())
        assert found.pop("address").startswith(f"{hub.endpoint}/datasets/org/explained/commit/")
        assert found == {"size": [16, 16], "test": [0, 1, 2], "train": [0, 1, 2, 3, 4]}
        metadata, body = split_card((tmp_path / "first.md").read_text())
        assert metadata["license"] == "other" and {"b-cos", "explanations"} <= set(metadata["tags"]) and metadata["source_datasets"] == ["org/pictures"]
        assert "| train | 5 | 0 |" in body and 'load_dataset("org/explained"' in body and str(tmp_path) not in body
        files = hub.repositories["datasets/org/explained"]
        assert {name: content for name, content in files.items() if name.startswith("data/")} == shards  # and none of an earlier push
        assert b"A person wrote this." in files["README.md"] and b"license: mit" in files["README.md"] and files["README.md"].count(b"## Limits") == 1
        assert "datasets/org/never" not in hub.repositories


def test_a_stream_need_not_know_its_columns(models, processors, tmp_path):
    data = IterableDataset.from_generator(lambda: ({"image": picture(i), "label": i % 3} for i in range(3)))
    assert data.features is None
    assert explain_dataset(models["image"], processors["image"], data, tmp_path / "out")["rows"] == 3
    assert list(read(tmp_path / "out")["label"]) == [0, 1, 2]
