"""The settings of the image recipes, each ablation among them, and pictures of another size."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from conftest import SAME_IMAGE, tiny
from test_image_callbacks import resnet
from transformers import TrainingArguments

from bcos_hf import bcosify
from bcos_hf.training import ImageDataArguments, ImageModelArguments, parse
from bcos_hf.training.image import config_fields
from bcos_hf.training.resolution import at_size


ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "recipes" / "configs" / "image").rglob("*.yaml"))


# -- another size of pictures


@pytest.mark.parametrize("family", ["vit", "deit", "dinov2"])
def test_positions_for_another_size_are_those_that_transformers_interpolates(family):
    model, pixels = tiny(family), torch.randn(2, 3, 24, 24, dtype=torch.float64)
    before = model(pixels, **({} if family == "dinov2" else {"interpolate_pos_encoding": True})).logits
    torch.testing.assert_close(at_size(model, 24)(pixels).logits, before)
    torch.testing.assert_close(bcosify(model, **SAME_IMAGE)(pixels).logits, before)
    assert at_size(model, 24) is model and model.config.image_size == 24
    with pytest.raises(ValueError, match="expected a multiple of the patch size, 4, got 30"):
        at_size(model, 30)


@pytest.mark.parametrize("family", ["simple_vit", "resnet", "cifar_resnet", "resnext", "densenet", "convnext", "vgg"])
def test_a_network_without_positions_takes_any_size_as_it_is(family):
    model = tiny(family)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert all(torch.equal(tensor, state[name]) for name, tensor in at_size(model, 24).state_dict().items())
    assert model(torch.randn(1, 3, 24, 24, dtype=torch.float64)).logits.shape == (1, 3)


# -- the settings of the recipes


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_recipe_is_understood_by_a_model(file):
    model_args, data_args, training_args = parse([str(file), "--bf16", "false"], ImageModelArguments, ImageDataArguments, TrainingArguments)
    fields = config_fields(model_args)
    model = bcosify(resnet(), **fields)
    assert {name: getattr(model.config, name) for name in fields} == fields
    assert training_args.max_grad_norm == 0 or not model_args.adaptive_clipping
    assert not data_args.streaming or training_args.max_steps > 0


def test_every_ablation_differs_from_the_published_row():
    rows = {file.stem: yaml.safe_load(file.read_text()) for file in CONFIGS if file.parent.name == "ablations"}
    changes = {name: {key: value for key, value in row.items() if key not in ("base", "output_dir")} for name, row in rows.items()}
    assert changes.pop("published") == {} and all(changes.values()) and len(changes) >= 8
    assert len({json.dumps(row, sort_keys=True) for row in changes.values()}) == len(changes)
    assert all(row["output_dir"] == f"outputs/ablations/{name}" for name, row in rows.items())


def test_ablations_are_the_papers_conversion_without_a_refit():
    for file in CONFIGS:
        if file.parent.name == "ablations":
            model_args, *_ = parse([str(file), "--bf16", "false"], ImageModelArguments, ImageDataArguments, TrainingArguments)
            assert (model_args.calibration_samples, model_args.head_first_steps, model_args.weight_norm) == (0, 0, None)


def test_a_logit_bias_is_auto_none_or_a_number():
    assert [config_fields(ImageModelArguments(logit_bias=value))["logit_bias"] for value in ("auto", "none", "-1.5")] == ["auto", None, -1.5]
