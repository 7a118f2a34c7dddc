"""evaluate and explain-dataset: a classifier of pictures or texts on data sets of every kind, with the numbers of the functions they call."""

import json

import numpy as np
import pytest
import torch
from conftest import tiny
from datasets import Dataset, load_dataset
from PIL import Image
from test_cli import run
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, BertTokenizerFast, ViTImageProcessorPil

from bcos_hf import bcosify
from bcos_hf.data import load_split
from bcos_hf.hub import recorded_evaluation
from bcos_hf.metrics import bootstrap_interval, evaluate_classifier, faithfulness, play_grid_pointing_game
from bcos_hf.metrics.evaluation import measures_of
from bcos_hf.metrics.pixel_perturbation import deletion_curve


CLASSES = ("bird", "cat", "dog", "frog")


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A B-cos ViT and BERT; pictures in folders by class, which are what the ViT says of them but for one of each class; texts in a csv file."""
    folder, random = tmp_path_factory.mktemp("evaluate"), np.random.default_rng(0)
    names = dict(enumerate(CLASSES))
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    vit = bcosify(tiny("vit", id2label=names, num_labels=4).float(), b=1.25)
    colours = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0], [0, 0, 200]])[:, None, None]
    pictures = [(colours[i % 4] + random.integers(0, 55, (16, 16, 3))).astype(np.uint8) for i in range(24)]
    pixels, optimiser = processor(pictures, return_tensors="pt")["pixel_values"], torch.optim.Adam(vit.parameters(), lr=0.01)
    for _ in range(40):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(vit(pixel_values=pixels).logits, torch.arange(24) % 4).backward()
        optimiser.step()
    predictions = vit(pixel_values=pixels).logits.argmax(1)
    for i, (picture, label) in enumerate(zip(pictures, predictions.tolist(), strict=True)):
        (folder / "pictures" / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / "pictures" / CLASSES[label] / f"{i}.png")
    wrong = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    label = vit(pixel_values=processor(wrong, return_tensors="pt")["pixel_values"]).logits.argmin().item()
    Image.fromarray(wrong).save(folder / "pictures" / CLASSES[label] / "wrong.png")
    (folder / "pictures" / CLASSES[0] / "broken.png").write_bytes(b"%PDF-1.4")
    vit.save_pretrained(folder / "vit")
    processor.save_pretrained(folder / "vit")
    bcosify(tiny("bert", id2label={0: "bad", 1: "good", 2: "so"}).float(), b=1.25).save_pretrained(folder / "bert")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "good", "bad", "dull"]))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    words = ["a", "film", "good", "bad", "dull"]
    texts = [" ".join(random.choice(words, size=2 + i % 6)) for i in range(9)]
    lines = [f"{text},{('good', 'bad', 'so')[i % 3]}" for i, text in enumerate(texts)]
    (folder / "texts.csv").write_text("\n".join(["text,label", *lines, ",good"]) + "\n")
    return folder


def printed(*arguments):
    return json.loads(run(*arguments, "--json").stdout.splitlines()[-1])


def test_texts(folder, tmp_path):
    made = printed("evaluate", folder / "bert", folder / "texts.csv", "--batch-size", 2, "--seed", 3, "--output", tmp_path / "out" / "results.json", "--save")
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == made
    assert (made["n"], made["skipped"], made["seed"]) == (9, 1, 3) and list(made["metrics"]) == measures_of(pictures=False)
    assert recorded_evaluation(folder / "bert") == {"metrics": made["metrics"], "datasets": None}
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder / "bert").eval(), BertTokenizerFast.from_pretrained(folder / "bert")
    rows = load_split(str(folder / "texts.csv")).select(range(9))
    inputs = tokenizer(rows["text"][:], padding=True, return_tensors="pt")
    explanation = model.explain(**inputs)
    right = (explanation.logits.argmax(1) == torch.tensor([("bad", "good", "so").index(label) for label in rows["label"]])).double()
    assert made["metrics"]["accuracy"] == {**bootstrap_interval(right, seed=3), "n": 9}
    wanted = faithfulness(model, [{name: inputs[name] for name in ("input_ids", "attention_mask")}], [explanation.contributions[:, 0]], tokenizer)
    for name, value in wanted.items():
        assert made["metrics"][name]["mean"] == pytest.approx(value, abs=1e-5)
        assert made["metrics"][name]["low"] <= made["metrics"][name]["mean"] <= made["metrics"][name]["high"]
    assert 0 <= made["metrics"]["completeness"]["mean"] <= made["metrics"]["completeness"]["max"] < 1e-5


def test_pictures(folder):
    given = ("evaluate", folder / "vit", folder / "pictures", "--split", "train")
    made = printed(*given, "--grids", 2, "--threshold", 0, "--batch-size", 5)
    assert (made["n"], made["skipped"]) == (25, 1) and list(made["metrics"]) == measures_of(pictures=True)
    assert made["metrics"]["accuracy"]["mean"] == pytest.approx(24 / 25) and made["metrics"]["completeness"]["max"] < 1e-4
    model, processor = AutoModelForImageClassification.from_pretrained(folder / "vit").eval(), ViTImageProcessorPil.from_pretrained(folder / "vit")
    files = [path for path in sorted((folder / "pictures").rglob("*.png")) if path.name != "broken.png"]
    pixels = processor([Image.open(path) for path in files], return_tensors="pt")["pixel_values"]
    labels = torch.tensor([CLASSES.index(path.parent.name) for path in files])
    game = play_grid_pointing_game(model, {"bcos": lambda **x: model.explain(**x, interpolate_pos_encoding=True)}, pixels, labels, count=2, threshold=0.0)
    assert made["metrics"]["grid_pointing_game"]["mean"] == pytest.approx(game["bcos"]["mean"], abs=1e-5) and made["metrics"]["grid_pointing_game"]["n"] == 2
    with torch.no_grad():
        explanation = model.explain(pixels)
        areas = deletion_curve(lambda x: model(pixel_values=x).logits.softmax(-1), pixels, explanation.contributions[:, 0], explanation.targets[:, 0])[1]
    assert made["metrics"]["pixel_deletion"]["mean"] == pytest.approx(areas.mean().item(), abs=1e-5)
    one = printed(*given, "--metric", "accuracy,completeness", "--limit", 7, "--streaming")
    assert list(one["metrics"]) == ["accuracy", "completeness"] and one["n"] + one["skipped"] == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bert", "texts.csv", "--metric", "grid_pointing_game"), "metrics: expected some of"),
        (("vit", "pictures", "--split", "train", "--metric", "sufficiency"), "metrics: expected some of"),
        (("vit", "pictures", "--split", "train", "--metric", "grid_pointing_game", "--grids", "999"), "expected pictures for 999 grids"),
        (("bert", "texts.csv", "--label-column", "stars"), "expected columns out of"),
        (("bert", "texts.csv", "--input-column", "stars"), "expected one of the columns"),
        (("bert", "other.csv"), "label: expected one of the model's"),
    ],
)
def test_what_cannot_be_measured_is_said(folder, arguments, message):
    (folder / "other.csv").write_text("text,label\na film,ugly\n")
    model, data, *rest = arguments
    assert message in run("evaluate", folder / model, folder / data, *rest, status=1).stderr
    assert "--save: expected the folder" in run("evaluate", "org/none", folder / data, "--save", status=1).stderr


def test_labels_that_are_missing_are_passed_over(folder):
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder / "bert").eval(), BertTokenizerFast.from_pretrained(folder / "bert")
    data = Dataset.from_dict({"text": ["a film", "good", "bad"], "label": [None, 1, -1]})
    assert evaluate_classifier(model, tokenizer, data, ["accuracy"])["n"] == 1
    with pytest.raises(ValueError, match="at least one row with a label"):
        evaluate_classifier(model, tokenizer, data.select([0, 2]), ["accuracy"])
    with pytest.raises(ValueError, match="expected a column of labels"):
        evaluate_classifier(model, tokenizer, data.remove_columns("label"), ["accuracy"])


def test_explain_dataset(folder, tmp_path):
    for command in ("explain-dataset", "evaluate"):
        assert f"bcos-hf {command}" in run(command, "--help").stdout
    made = printed("explain-dataset", folder / "bert", folder / "texts.csv", tmp_path / "texts", "--target", "label", "--rows-per-file", 4, "--batch-size", 3)
    assert (made["rows"], made["skipped"], len(made["files"])) == (9, 1, 3)
    rows = load_dataset(str(tmp_path / "texts"), split="test")
    assert rows["label"][:3] == rows["target"][:3] == [1, 0, 2] and rows.features["label"].names == ["bad", "good", "so"]
    done = run("explain-dataset", folder / "vit", folder / "pictures", tmp_path / "pictures", "--split", "train", "--target", "dog")
    assert "25 rows explained, 1 skipped, in 1 files" in done.stdout
    assert set(load_dataset(str(tmp_path / "pictures"), split="train")["target"]) == {2}
    assert "another. Nothing was changed" in run("explain-dataset", folder / "bert", folder / "texts.csv", tmp_path / "pictures", status=1).stderr
