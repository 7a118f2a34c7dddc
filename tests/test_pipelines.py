"""Stock pipelines work on saved B-cos models, and one of ours explains; pictures of every mode are read."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import tiny
from PIL import Image
from transformers import BertTokenizerFast, ViTImageProcessorPil, pipeline

from bcos_hf import bcosify


@pytest.fixture(params=["resnet", "vit"])
def folder(request, tmp_path):
    bcosify(tiny(request.param)).float().save_pretrained(tmp_path / "model")
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def picture(mode="RGB"):
    grey = Image.linear_gradient("L").resize((20, 24))
    return Image.merge("RGB", [grey, grey.transpose(Image.Transpose.ROTATE_180), grey]).convert(mode)


def test_image_classification(folder):
    classify = pipeline("image-classification", folder, top_k=3)
    made = classify(picture())
    logits = classify.model(**classify.image_processor(picture(), return_tensors="pt")).logits[0]
    assert [entry["score"] for entry in made] == pytest.approx(sorted(logits.softmax(0).tolist(), reverse=True), abs=1e-6)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "RGBA", "1"])
def test_pictures_of_every_mode_are_explained(folder, mode, tmp_path):
    picture(mode).save(tmp_path / "picture.tiff")
    explain = pipeline("bcos-image-explanation", folder)
    (made,) = explain(str(tmp_path / "picture.tiff"))
    explanation = made["explanation"]
    assert explanation.contributions.shape == (1, 1, 16, 16) and explanation.relative_residual.max() < 1e-5
    assert made["score"] == pytest.approx(explanation.explained_logits.sigmoid().item())
    assert made["label"] == explain.model.config.id2label[explanation.logits[0].argmax().item()]


def test_several_classes_and_pictures(folder):
    explain = pipeline("bcos-image-explanation", folder)
    many = explain([picture(), picture().rotate(90)], top_k=2, batch_size=2)
    assert [len(entry) for entry in many] == [2, 2] and many[0][0]["score"] >= many[0][1]["score"]
    alone = explain(picture(), targets=2)
    assert [entry["label"] for entry in alone] == ["LABEL_2"]
    (twice,) = (entry for entry in many[0] if entry["label"] == explain(picture())[0]["label"])
    torch.testing.assert_close(twice["explanation"].contributions, explain(picture())[0]["explanation"].contributions, rtol=1e-4, atol=1e-6)


def test_a_truncated_picture_and_a_model_that_is_no_b_cos_model(folder, tmp_path):
    picture().save(tmp_path / "whole.png")
    (tmp_path / "part.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-60])
    with Image.open(tmp_path / "part.png") as part, pytest.raises(OSError, match="truncated"):
        pipeline("bcos-image-explanation", folder)(part)
    tiny("resnet").save_pretrained(tmp_path / "plain")
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "plain")
    with pytest.raises(TypeError, match="bcosify"):
        pipeline("bcos-image-explanation", str(tmp_path / "plain"))


@pytest.mark.parametrize("targets", [1, "LABEL_2", [0, 2], ["LABEL_1", 0], torch.tensor([0, 1])])
def test_targets_mean_the_same_whatever_the_size_of_the_batches(folder, targets):
    explain = pipeline("bcos-image-explanation", folder)
    images = [picture(), picture().rotate(90), picture().rotate(180)]
    made = [[[entry["label"] for entry in one] for one in explain(images, targets=targets, batch_size=size)] for size in (1, 2, 3)]
    assert made[0] == made[1] == made[2]
    for wrong in ([[0], [1]], 3, "cat", 0.5, []):
        with pytest.raises(ValueError, match="targets: expected"):
            explain(images, targets=wrong)


def text_folder(path, head="sequence"):
    bcosify(tiny("bert", head)).float().save_pretrained(path)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "film", "bad", "##ly"]
    BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}).save_pretrained(path)
    return str(path)


REMOTE = """
import sys
from transformers import pipeline
explain = pipeline("bcos-text-explanation", sys.argv[1], trust_remote_code=True)
(made,) = explain("good film", targets=[1])
print(made["label"], made["explanation"].tokens, "bcos_hf" in sys.modules)
"""


def test_texts_are_explained_here_and_without_bcos_hf(tmp_path):
    folder = text_folder(tmp_path / "model")
    explain = pipeline("bcos-text-explanation", folder)
    texts = ["good film", "badly", "good film " * 60]
    (made, word, long) = explain(texts, targets=["LABEL_1", 0], batch_size=2)
    assert [entry["label"] for entry in made] == ["LABEL_1", "LABEL_0"]
    assert word[0]["explanation"].tokens == [["[CLS]", "badly", "[SEP]"]] and len(long[0]["explanation"].tokens[0]) <= 40
    assert len(explain("badly", words=False)[0]["explanation"].tokens[0]) == 4 and len(explain("good", top_k=2)) == 2
    (tmp_path / "use.py").write_text(REMOTE)
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "use.py", folder], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "LABEL_1 [['[CLS]', 'good', 'film', '[SEP]']] False", done.stderr[-2000:]
    with pytest.raises((TypeError, ValueError), match=r"random|missing|lacks|classifier"):
        pipeline("bcos-text-explanation", text_folder(tmp_path / "mlm", "mlm"))
