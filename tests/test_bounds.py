"""What no model has is refused before anything is built: by every way that a model is loaded, in words, and without the memory that it asks for."""

import json
import math

import pytest
import torch
from conftest import SIZES, tiny
from transformers import AutoConfig, AutoModel
from typer.testing import CliRunner

from bcos_hf import bcosify
from bcos_hf.cli import app
from bcos_hf.models.bcos_bounds import check_sizes
from bcos_hf.space.loading import load


HUGE = {
    "num_hidden_layers": 10**6,
    "num_labels": 10**9,
    "hidden_size": 10**9,
    "intermediate_size": 10**9,
    "max_out": 10**9,
    "vocab_size": 10**9,
}
HUGE |= {"image_size": 30_000, "depths": [10**6], "max_position_embeddings": 10**9, "num_attention_heads": 10**8}
BELOW = {"num_hidden_layers": 900, "hidden_size": 900_000, "vocab_size": 90_000_000}  # which only the weights tell


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("bounds")
    for family in ("bert", "vit"):
        bcosify(tiny(family)).float().save_pretrained(place / family)
    tiny("bert").float().save_pretrained(place / "standard")
    return place


def ways(source):
    """All ways to load a folder."""
    yield lambda: AutoConfig.from_pretrained(source) and AutoModel.from_pretrained(source)
    yield lambda: bcosify(source)
    yield lambda: load(source)
    for command in (["explain", str(source), "a"], ["convert", str(source), f"{source}-new"]):

        def run(command=command):
            done = CliRunner().invoke(app, command)
            assert done.exit_code == 1 and len(done.output.splitlines()) <= 2
            raise ValueError(done.output)

        yield run


@pytest.mark.parametrize("name, value", [*HUGE.items(), *BELOW.items()])
def test_sizes_beyond_all_models_are_refused(folder, tmp_path, name, value):
    for family in ("bert", "vit", "standard"):
        values = json.loads((folder / family / "config.json").read_text())
        if name == "num_labels":
            values.pop("id2label", None), values.pop("label2id", None)
        (tmp_path / family).mkdir()
        (tmp_path / family / "config.json").write_text(json.dumps({**values, name: value}))
        (tmp_path / family / "model.safetensors").write_bytes((folder / family / "model.safetensors").read_bytes())
        for number, way in enumerate(ways(tmp_path / family)):
            if number == 0 and family == "standard":
                continue  # which is transformers' own
            with pytest.raises((ValueError, RuntimeError), match=r"expected|Expected"):
                way()


def test_every_family_stays_within_the_bounds():
    for family in SIZES:
        config = bcosify(tiny(family)).config
        check_sizes(config.to_dict(), family)
        with pytest.raises(ValueError, match="num_labels"):
            type(config)(num_labels=10**9)


def test_the_weights_bound_the_model(folder):
    cls = type(AutoModel.from_pretrained(folder / "bert"))
    config = AutoConfig.from_pretrained(folder / "bert", hidden_size=100_000, intermediate_size=100_000)
    with pytest.raises(ValueError, match="Nothing was loaded"):
        cls.from_pretrained(folder / "bert", config=config)
    with torch.device("meta"):
        assert math.prod(cls(config).encoder.layer[0].intermediate.dense.weight.shape) == 10**10


@pytest.mark.parametrize("size", [{"height": 30_000, "width": 30_000}, {"shortest_edge": 30_000}, 30_000])
def test_image_processors_of_huge_images_are_refused(folder, tmp_path, size):
    (tmp_path / "vit").symlink_to(folder / "vit")
    for name in ("preprocessor_config.json", "processor_config.json"):
        place = tmp_path / name.split(".")[0]
        place.mkdir()
        for file in (folder / "vit").iterdir():
            (place / file.name).symlink_to(file)
        made = {"image_processor_type": "ViTImageProcessor", "size": size}
        (place / name).write_text(json.dumps(made if name.startswith("pre") else {"image_processor": made}))
        for number, way in enumerate(ways(place)):
            if number:
                with pytest.raises(ValueError, match="4,096"):
                    way()
