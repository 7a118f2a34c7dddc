"""The recipes that measure refits run from end to end: on a small model and a folder of images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny
from PIL import Image
from transformers import AutoModelForImageClassification, ViTImageProcessorPil


RECIPES = Path(__file__).parents[1] / "recipes"
SIZE = 64


def photo(i: int) -> Image.Image:
    """Of class i % 4: as many stripes, of one of four colors, with noise."""
    random = np.random.default_rng(i)
    color = np.array([[220, 40, 40], [40, 220, 40], [40, 40, 220], [220, 220, 40]])[i % 4]
    stripes = np.where(np.arange(SIZE)[:, None, None] * (1 + i % 4) // 16 % 2 == 0, color, 128)
    noisy = stripes + random.normal(0, 10, (SIZE, SIZE, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path):
    """A ResNet whose head tells four kinds of photos apart, and thirty of them."""
    model = tiny("resnet", num_labels=4).float()
    processor = ViTImageProcessorPil(
        size={"height": SIZE, "width": SIZE}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.25, 0.3]
    )
    with torch.no_grad():
        seen = processor([photo(i) for i in range(4)], return_tensors="pt")
        features = model.resnet(**seen).pooler_output.flatten(1)
        model.classifier[-1].weight.copy_(8 * torch.linalg.pinv(features).T)
        model.classifier[-1].bias.zero_()
    for part in (model, processor):
        part.save_pretrained(tmp_path / "resnet")
    (tmp_path / "photos").mkdir()
    for i in range(30):
        photo(i).save(tmp_path / "photos" / f"{i:02d}.png")
    return tmp_path


def test_the_imagenet_recipe_refits_measures_and_draws(folder, run_recipe):
    arguments = ("--source", "resnet", "--photos", "photos", "--grids", "1", "--steps", "1", "--output_dir", "results")
    run_recipe(folder, RECIPES / "refit_imagenet.py", *arguments)
    made = json.loads((folder / "results" / "refit_resnet50_imagenet.json").read_text())
    assert made["n"]["test"] == 6
    assert made["refit"]["photos"] == 24
    assert made["max_relative_residual"] < 1e-4
    assert made["constant"]["least"] == pytest.approx(made["constant"]["logit_bias"], rel=1e-5)
    assert made["constant"]["most"] == pytest.approx(made["constant"]["logit_bias"], rel=1e-5)
    assert set(made["grid_pointing_game"]) >= {"bcos", "gradcam", "input_x_gradient", "plain_conversion"}
    with Image.open(folder / "results" / "refit_resnet50_imagenet.png") as figure:
        assert np.asarray(figure.convert("L")).std() > 5  # something is drawn
    twin = AutoModelForImageClassification.from_pretrained(folder / "outputs" / "refit_resnet50_imagenet")
    assert twin.config.stride_blur
    assert not twin.config.keep_biases
