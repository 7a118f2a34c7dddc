"""convert --calibrate: a classifier and a data set become a B-cos classifier that works, measured on other rows."""

import json

import numpy as np
import pytest
import torch
import transformers
from conftest import tiny
from datasets import Dataset
from PIL import Image
from test_cli import run
from test_image_text import standard_of
from transformers import AutoImageProcessor, BertTokenizerFast, ViTImageProcessorPil

from bcos_hf import bcosify
from bcos_hf.hub import model_card, recorded_conversion, recorded_evaluation
from bcos_hf.hub.push import write_model_folder
from bcos_hf.training import BcosTrainer


pytestmark = pytest.mark.usefixtures("own_cache")
WORDS = ["a", "film", "good", "bad", "dull", "very", "not", "it", "was"]
CLASSES = ("bird", "cat", "dog")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Standard models with their processors; texts in a csv file, with labels and second texts; images by class."""
    folder, random = tmp_path_factory.mktemp("convert"), np.random.default_rng(0)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    names = {0: "bad", 1: "good", 2: "so"}
    for name, model in {
        "bert": tiny("bert", id2label=names),
        "mlm": tiny("bert", "mlm"),
        "encoder": tiny("bert").base_model,
        "llama": tiny("llama", "causal", bos_token_id=2, eos_token_id=3),
    }.items():
        model.float().save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    processor = ViTImageProcessorPil(
        size={"height": 16, "width": 16}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.25, 0.3]
    )
    for name in ("vit", "resnet"):
        tiny(name, id2label=dict(enumerate(CLASSES)), num_labels=3).float().save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    texts = [" ".join(random.choice(WORDS, size=2 + i % 7)) for i in range(60)]
    lines = [
        f"{text},{other},{names[i % 3]}"
        for i, (text, other) in enumerate(zip(texts, texts[1:] + texts[:1], strict=True))
    ]
    (folder / "texts.csv").write_text("\n".join(["text,other,label", *lines]) + "\n")
    (folder / "texts.txt").write_text("\n".join(texts) + "\n")
    for i in range(30):
        place = folder / "images" / CLASSES[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        mode, shape = ("L", (20 + i, 24)) if i % 5 == 0 else ("RGB", (20 + i, 24, 3))
        Image.fromarray(random.integers(0, 255, shape, dtype=np.uint8), mode).save(place / f"{i}.png")
    return folder


def printed(*arguments):
    return json.loads(run("convert", *arguments, "--json").stdout.splitlines()[-1])


def test_a_classifier_and_a_file_alone(folder, tmp_path):
    out = tmp_path / "bcos"
    made = printed(folder / "bert", out, "--calibrate", folder / "texts.csv")
    assert (
        made["model"] == "BcosBertForSequenceClassification"
        and made["calibration"]["samples"] == 48
        and len(made["fits"]) > 5
    )
    assert list(made["metrics"]) == ["standard_accuracy", "accuracy", "agreement"] and {
        value["n"] for value in made["metrics"].values()
    } == {12}
    assert made["calibration"] | {"source": "texts.csv", "split": "train", "seed": 0} == made["calibration"]
    record = recorded_conversion(out)
    assert record["fits"] == made["fits"] and record["calibration"] == made["calibration"] and record["dropped"]
    assert recorded_evaluation(out) == {"metrics": made["metrics"], "datasets": None}
    model = transformers.AutoModelForSequenceClassification.from_pretrained(out).eval()
    standard = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "bert").eval()
    plain = run("convert", folder / "bert", tmp_path / "plain", "--weight-norm", "none")
    assert "needs fine-tuning" in plain.stdout
    unfitted = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain").eval()
    inputs = BertTokenizerFast.from_pretrained(out)([" ".join(WORDS[i : i + 4]) for i in range(6)], return_tensors="pt")
    with torch.no_grad():
        logits, wanted, before = (part(**inputs).logits.log_softmax(-1) for part in (model, standard, unfitted))
    assert (logits - wanted).norm() < 0.5 * (before - wanted).norm()
    again = printed(folder / "bert", tmp_path / "again", "--calibrate", folder / "texts.csv")
    assert (
        again["metrics"] == made["metrics"]
        and (tmp_path / "again" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    )


def test_what_is_said(folder, tmp_path):
    said = run(
        "convert",
        folder / "bert",
        tmp_path / "out",
        "--calibrate",
        folder / "texts.csv",
        "--calibration-samples",
        20,
        "--seed",
        1,
    ).stdout
    assert "Refitted on 20 rows without labels; measured on 40 others, fewer than 500" in said
    for text in (
        "R^2 on held-out rows, mean,",
        "standard accuracy: ",
        "\naccuracy: ",
        "\nagreement: ",
        f"Saved to {tmp_path / 'out'}",
    ):
        assert text in said
    assert "refitted layer" not in said and len(said.splitlines()) < 10
    whole = run("convert", folder / "bert", tmp_path / "whole", "--calibrate", folder / "texts.csv", "--verbose").stdout
    assert "refitted layer" in whole and "bert.encoder.layer.0.attention.self.key" in whole


def test_pairs_of_texts_and_a_budget(folder, tmp_path):
    given = (
        folder / "bert",
        tmp_path / "out",
        "--calibrate",
        folder / "texts.csv",
        "--input-column",
        "text",
        "--second-text-column",
        "other",
    )
    made = printed(*given, "--r2-budget", 0.05)
    b = transformers.AutoConfig.from_pretrained(tmp_path / "out").b
    assert made["metrics"]["agreement"]["n"] == 12 and len(b) == 3 and min(b) >= 1


@pytest.mark.parametrize(("name", "metrics"), [
    ("llama", ["standard_perplexity", "perplexity", "agreement"]),
    ("mlm", ["standard_perplexity", "perplexity", "agreement"]),
    ("encoder", ["cosine"]),
])  # fmt: skip
def test_language_models_and_encoders(folder, tmp_path, name, metrics):
    made = printed(folder / name, tmp_path / "out", "--calibrate", folder / "texts.txt")
    assert list(made["metrics"]) == metrics and made["metrics"][metrics[0]]["n"] >= 5
    if name == "llama":
        assert made["metrics"]["perplexity"]["mean"] < 1.3 * made["metrics"]["standard_perplexity"]["mean"]
    if name == "encoder":
        assert made["metrics"]["cosine"]["mean"] > 0.8


def test_images_with_captions(folder, tmp_path):
    source, random = tmp_path / "clip", np.random.default_rng(0)
    standard_of("clip").float().save_pretrained(source)
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=12).save_pretrained(source)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(source)
    pixels = random.integers(0, 255, (30, 20, 20, 3), dtype=np.uint8)
    rows = {
        "image": [Image.fromarray(image) for image in pixels],
        "caption": [" ".join(random.choice(WORDS, 4)) for _ in pixels],
    }
    Dataset.from_dict(rows).to_parquet(tmp_path / "rows.parquet")
    made = printed(source, tmp_path / "out", "--calibrate", tmp_path / "rows.parquet")
    assert made["metrics"]["cosine"]["mean"] > 0.85 and made["metrics"]["cosine"]["n"] == 6
    Dataset.from_dict({"image": rows["image"]}).to_parquet(tmp_path / "images.parquet")
    said = run("convert", source, tmp_path / "none", "--calibrate", tmp_path / "images.parquet", status=1).stderr
    assert "expected a column of captions beside the images" in said


@pytest.mark.parametrize(("name", "encoding"), [("resnet", "add_inverse"), ("vit", "normalized")])
def test_images(folder, tmp_path, name, encoding):
    (folder / "images" / "cat" / "broken.png").write_bytes(b"%PDF-1.4")
    made = printed(folder / name, tmp_path / "out", "--calibrate", folder / "images")
    assert (
        list(made["metrics"]) == ["standard_accuracy", "accuracy", "agreement"]
        and "1 could not be read" in made["notes"][0]
    )
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").input_encoding == encoding
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out", backend="pil")
    assert processor.do_normalize == (encoding == "normalized") and processor.do_rescale
    stem = made["fits"][0]
    assert stem["r2"] > stem["r2_before"] and (encoding == "normalized" or stem["constant"] > 0.999)
    other = printed(
        folder / name, tmp_path / "other", "--calibrate", folder / "images", "--input-encoding", "normalized"
    )
    assert AutoImageProcessor.from_pretrained(tmp_path / "other", backend="pil").do_normalize and other["metrics"]


def test_the_standard_model_gets_normalized_images(folder, tmp_path):
    """With B = 1 the first layer on [x, 1 - x] is the standard one on (x - mean) / std exactly, bias and norm too."""
    made = printed(folder / "resnet", tmp_path / "out", "--calibrate", folder / "images", "--b", 1)
    assert made["fits"][0]["r2"] > 0.9999


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--r2-budget", "0.1"), "--r2-budget: expected --calibrate"),
        (("--calibrate", "texts.csv", "--r2-budget", "0.1", "--b", "2"), "expected one of them"),
        (("--calibrate", "texts.csv", "--weight-norm", "unit"), "--weight-norm, --calibrate: expected"),
        (("--calibrate", "texts.csv", "--calibration-samples", "0"), "expected at least 1"),
        (("--calibrate", "texts.csv", "--input-column", "label2"), "expected one of the columns"),
        (("--calibrate", "texts.csv", "--label-column", "other"), "--label-column: label: expected one of the model's"),
        (("--calibrate", "one.csv"), "expected at least 2 rows"),
        (("--calibrate", "images"), "is known by its name or its type"),
        (("--calibrate", "absent.csv"), "absent.csv"),
    ],
)
def test_errors_are_a_line_and_leave_nothing(folder, tmp_path, arguments, message):
    (folder / "one.csv").write_text("text,label\na film,bad\n")
    arguments = [folder / text if text.endswith((".csv", "images")) else text for text in arguments]
    said = run("convert", folder / "bert", tmp_path / "out", *arguments, status=1).stderr
    assert message in said and said.strip().splitlines()[-1].startswith("bcos-hf: ") and not (tmp_path / "out").exists()


def test_a_folder_with_content_is_refused_before_any_work(folder, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    before = sorted(path.name for path in (folder / "bert").iterdir())
    assert "expected a new or empty folder" in run("convert", "org/absent", tmp_path, status=1).stderr
    assert (
        "expected another folder than that of the source"
        in run("convert", folder / "bert", folder / "bert", status=1).stderr
    )
    assert before == sorted(path.name for path in (folder / "bert").iterdir()) and [
        path.name for path in tmp_path.iterdir()
    ] == ["mine.txt"]


def test_labels_of_another_task_are_passed_over(folder, tmp_path):
    (folder / "others.csv").write_text(
        "text,label\n" + "\n".join(f"{' '.join(WORDS[i % 5 :])} {WORDS[i % 7]},genre{i}" for i in range(20))
    )
    made = printed(folder / "bert", tmp_path / "out", "--calibrate", folder / "others.csv")
    assert (
        list(made["metrics"]) == ["agreement"]
        and "No accuracy: the labels in 'label' are not the model's" in made["notes"][-1]
    )


def test_a_push_keeps_the_record_and_its_card_says_what_was_done(folder, tmp_path):
    out = tmp_path / "out"
    printed(folder / "bert", out, "--calibrate", folder / "texts.csv")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(out)
    write_model_folder(tmp_path / "pushed", model, "org/bcos", license="mit", **recorded_evaluation(out))
    assert recorded_conversion(tmp_path / "pushed") == recorded_conversion(out)
    card = (tmp_path / "pushed" / "README.md").read_text()
    assert (
        "Converted from a standard model by a least-squares refit of its layers on 48 unlabeled inputs, "
        "without training." in card
    )
    assert "| agreement | " in card and "He et al." in card
    with torch.no_grad():
        model.classifier.weight.mul_(1.01)
    assert "on 48 unlabeled inputs, then fine-tuned." in model_card(model, "org/bcos", license="mit")
    assert "on 48 unlabeled inputs. B = " in model_card(model.half(), "org/bcos", license="mit")  # nothing is known
    run("convert", folder / "bert", tmp_path / "plain")
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain")
    card = model_card(plain, "org/bcos", license="mit")
    assert "Converted from a standard model, without training: it needs fine-tuning" in card and "He et al." not in card
    assert "Converted from a standard model, then fine-tuned." in model_card(
        plain, "org/bcos", license="mit", training={"steps": 3}
    )


def test_what_is_trained_from_a_refit_says_both(folder, tmp_path):
    printed(folder / "bert", tmp_path / "refit", "--calibrate", folder / "texts.csv")
    rows = [{"input_ids": [2, 5 + i % 4, 3], "labels": i % 3} for i in range(6)]

    def trained(model, place, steps):
        arguments = transformers.TrainingArguments(
            str(place), max_steps=steps, use_cpu=True, report_to="none", save_strategy="no", learning_rate=1e-2
        )
        trainer = BcosTrainer(model=model, args=arguments, train_dataset=rows)
        trainer.train()
        trainer.save_model()
        return model

    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "refit")
    trained(model, tmp_path / "trained", 1)
    record, before = recorded_conversion(tmp_path / "trained"), recorded_conversion(tmp_path / "refit")
    assert record["fits"] == before["fits"] and record["calibration"] == before["calibration"]
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "trained")
    assert "least-squares refit of its layers on 48 unlabeled inputs, then fine-tuned." in model_card(again, "org/bcos")
    trained(bcosify(tiny("bert").float()), tmp_path / "plain", 1)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain")
    assert "Converted from a standard model, then fine-tuned." in model_card(again, "org/bcos")
