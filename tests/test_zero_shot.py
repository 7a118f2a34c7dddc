"""Zero-shot classification: prompts, embeddings, accuracies, the pipeline, and the recipe that evaluates."""

import json
import runpy
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from conftest import EMBEDDERS
from PIL import Image
from torch.nn import functional as F
from transformers import BertTokenizerFast, CLIPProcessor, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from bcos_hf import bcosify
from bcos_hf.baselines import input_x_gradient
from bcos_hf.data import TEMPLATES, prompts_of
from bcos_hf.metrics import ZeroShotClassifier, class_embeddings, image_embeddings, linear_probe_accuracy, zero_shot_accuracy
from bcos_hf.training import fit_projections, image_tower_features, save_text_side, text_tower_features


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "this", "is", "cat", "dog", ".", "the", "red", "blue"]
RECIPE = Path(__file__).parents[1] / "recipes" / "evaluate_clip.py"


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    return BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))


def pair(family="dual_encoder"):
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(transformers.AutoConfig.for_model(family, **deepcopy(EMBEDDERS[family]))).eval()


def small_processor():
    return CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})


def test_prompts():
    assert [len(TEMPLATES[name]) for name in ("one", "imagenet7", "cifar10")] == [1, 7, 18]  # as published
    assert all(template.count("{}") == 1 for templates in TEMPLATES.values() for template in templates)
    assert prompts_of(["ice_bear", "cat"], ("a {}", "the {}")) == [["a ice bear", "the ice bear"], ["a cat", "the cat"]]
    for templates, message in (("two", "expected one of"), (("a cat",), "with {} for")):
        with pytest.raises(ValueError, match=message):
            prompts_of(["cat"], templates)


def test_class_embeddings_are_normalised_means_of_normalised_embeddings(tokenizer):
    model, prompts = pair(), [["a cat", "a photo of a cat"], ["a dog"]]
    made = class_embeddings(model, tokenizer, prompts)
    for embed, texts in zip(made, prompts, strict=True):
        single = []
        for text in texts:
            features = model.get_text_features(tokenizer(text, return_tensors="pt")["input_ids"]).pooler_output[0]
            single.append(features / features.norm())
        mean = sum(single) / len(single)
        torch.testing.assert_close(embed, (mean / mean.norm()).detach())


def test_accuracies_are_counted():
    torch.manual_seed(0)
    images, classes, labels = F.normalize(torch.randn(40, 5), dim=1), F.normalize(torch.randn(7, 5), dim=1), torch.randint(0, 6, (40,))
    made = zero_shot_accuracy(images, classes, labels)
    ranks = [sorted(range(7), key=lambda c, image=image: -(image @ classes[c]).item()) for image in images]
    assert made["top1"] == pytest.approx(sum(rank[0] == label for rank, label in zip(ranks, labels.tolist(), strict=True)) / 40)
    assert made["top5"] == pytest.approx(sum(label in rank[:5] for rank, label in zip(ranks, labels.tolist(), strict=True)) / 40)
    assert made["per_class"][6] is None
    for c in range(6):
        mine = [rank[0] == c for rank, label in zip(ranks, labels.tolist(), strict=True) if label == c]
        assert made["per_class"][c] == pytest.approx(sum(mine) / len(mine))


def test_a_linear_probe_finds_what_is_linear():
    torch.manual_seed(0)
    x = F.normalize(torch.randn(300, 8), dim=1)
    y = (x @ torch.randn(8, 3)).argmax(1)
    assert linear_probe_accuracy((x[:200], y[:200]), (x[200:], y[200:])) > 0.9
    assert linear_probe_accuracy((x[:200], y[:200].flip(0)), (x[200:], y[200:])) < 0.7


def test_a_zero_shot_classifier_is_the_model(tokenizer):
    standard, x = pair(), torch.randn(3, 3, 32, 32)
    model, classes = bcosify(standard), class_embeddings(standard, tokenizer, prompts_of(["cat", "dog"]))
    classifier = ZeroShotClassifier(model, classes)
    torch.testing.assert_close(classifier(x).logits, image_embeddings(model, x, batch_size=2) @ classes.T)
    made = classifier.explain(x, targets=[[0, 1]] * 3)
    torch.testing.assert_close(made.contributions.flatten(2).sum(-1) + made.constant, classifier(x).logits.detach(), rtol=0, atol=1e-5)
    assert input_x_gradient(ZeroShotClassifier(standard, classes), pixel_values=x).contributions.shape == (3, 1, 32, 32)


def test_projections_bring_together_what_belongs_together(tokenizer):
    model, names = pair(), ["red", "blue"]
    labels = torch.arange(40) % 2
    x = torch.randn(40, 3, 16, 16) + 2 * (2 * labels - 1).view(-1, 1, 1, 1)
    texts, text_labels = [text for of_class in prompts_of(names) for text in of_class], torch.arange(2)
    before = {name: value.clone() for name, value in model.state_dict().items() if "projection" not in name}
    fit_projections(
        model,
        image_tower_features(model, x.split(8)),
        labels,
        text_tower_features(model, tokenizer, texts),
        text_labels,
        steps=300,
        batch_size=16,
        learning_rate=1e-2,
    )
    assert zero_shot_accuracy(image_embeddings(model, x), class_embeddings(model, tokenizer, prompts_of(names)), labels)["top1"] > 0.9
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if name in before)


def test_a_saved_folder_makes_a_pipeline_and_a_processor(tmp_path):
    words = ["<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz.")]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])
    sizes = deepcopy(EMBEDDERS["clip"])
    sizes["text_config"] |= dict(max_position_embeddings=64, eos_token_id=1, bos_token_id=0)
    standard = transformers.CLIPModel(transformers.CLIPConfig(**sizes))
    standard.save_pretrained(tmp_path / "teacher")
    CLIPProcessor(small_processor(), tokenizer).save_pretrained(tmp_path / "teacher")
    bcosify(standard).save_pretrained(tmp_path / "bcos")
    save_text_side(str(tmp_path / "teacher"), small_processor(), tmp_path / "bcos")
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "bcos")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8))
    inputs = processor(text=["a cat", "a dog"], images=picture, padding=True, return_tensors="pt")
    model = transformers.AutoModelForZeroShotImageClassification.from_pretrained(tmp_path / "bcos")
    assert type(processor) is CLIPProcessor and model(**inputs).logits_per_image.shape == (1, 2)
    assert model.explain(**inputs, targets=[[0, 1]]).residual.abs().max() < 1e-6
    classify = transformers.pipeline("zero-shot-image-classification", model=str(tmp_path / "bcos"))
    answers = classify(picture, candidate_labels=["cat", "dog"])
    assert {answer["label"] for answer in answers} == {"cat", "dog"} and sum(answer["score"] for answer in answers) == pytest.approx(1)


def test_the_recipe_writes_a_file_once(tmp_path, tokenizer, monkeypatch, capsys):
    standard = pair()
    for name, model in (("teacher", standard), ("bcos", bcosify(standard))):
        model.save_pretrained(tmp_path / name)
    tokenizer.save_pretrained(tmp_path / "teacher")
    small_processor().save_pretrained(tmp_path / "teacher")
    random = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        for label in ("cat", "dog"):
            folder = tmp_path / "pictures" / split / label
            folder.mkdir(parents=True)
            for i in range(4):
                Image.fromarray(random.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    command = [RECIPE, "--model", "bcos", "--teacher", "teacher", "--dataset_name", "pictures", "--output_dir", "results", "--probe_samples", "8"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(text) for text in command])
    runpy.run_path(str(RECIPE), run_name="__main__")
    made = json.loads((tmp_path / "results" / "pictures.json").read_text())
    assert made["n_test"] == 8 and made["classes"] == ["cat", "dog"]
    assert all(0 <= made[kind][name]["top1"] <= 1 for kind in ("zero_shot",) for name in ("teacher", "bcos")) and set(made["linear_probe"]) == {
        "teacher",
        "bcos",
    }
    runpy.run_path(str(RECIPE), run_name="__main__")
    assert "is there" in capsys.readouterr().out
