"""Law 7: what is saved loads, bit for bit: same class, Auto classes, sharded, bf16, and as remote code in a process without bcos_hf."""

import os
import subprocess
import sys

import pytest
import torch
import transformers
from conftest import HEADS, SIZES, batch_of, tiny

from bcos_hf import Explanation, bcosify


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("fields", [{}, {"keep_biases": True, "learnable_b": True, "max_out": 2, "b": 1.25}])
def test_round_trip(member, fields, tmp_path):
    model, head = bcosify(tiny(*member), **fields).float(), member[1]
    model.save_pretrained(tmp_path, max_shard_size="15KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    for cls in (type(model), getattr(transformers, HEADS[head])):
        loaded, info = cls.from_pretrained(tmp_path, output_loading_info=True)
        assert type(loaded) is type(model) and same(loaded.state_dict(), model.state_dict())
        assert not info["missing_keys"] and not info["unexpected_keys"]
    if member[0] in ("clip", "siglip"):
        return  # there the model without a head is another one, with a text tower
    base, info = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(base).__name__.startswith("Bcos") and type(base).__name__.endswith("Model")
    ours = model.base_model.state_dict()
    saved = {name: value for name, value in base.state_dict().items() if "pooler" not in name}  # a pooler that this head has no use for is new
    assert not [key for key in info["missing_keys"] if "pooler" not in key]
    assert same(saved, {name: ours[name] for name in saved})


@pytest.mark.parametrize("family", ["resnet", "dinov2", "convnext"])
def test_backbones_take_the_weights_of_a_classifier(family, tmp_path):
    model = bcosify(tiny(family)).float()
    model.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path, out_indices=[-1])
    backbone = type(transformers.AutoBackbone.from_config(config)).from_pretrained(tmp_path, config=config)  # AutoBackbone itself takes Hub ids only
    pictures = batch_of(family)["pixel_values"].float()
    assert type(backbone).__name__.startswith("Bcos") and len(backbone(pictures).feature_maps) == 1
    shared = {name: value for name, value in backbone.state_dict().items() if "hidden_states_norms" not in name}
    ours = model.base_model.state_dict()
    assert same(shared, {name: ours[name] for name in shared})


def test_bf16_and_no_stale_shards(tmp_path):
    model = bcosify(tiny("bert"))
    model.float().save_pretrained(tmp_path, max_shard_size="20KB")
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("model*.safetensors*")] == ["model.safetensors"]
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert same(loaded.state_dict(), model.state_dict())


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    model = bcosify(tiny("bert")).float()
    model.save_pretrained(tmp_path / "model")
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    model.config.b = 0.5  # not a configuration that can be saved
    with pytest.raises(Exception, match="b: expected"):
        model.save_pretrained(tmp_path / "model")
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


WITHOUT_BCOS_HF = """
import sys, torch
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "bcos_hf":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
torch.set_num_threads(1)  # as in the tests: another number adds up in another order
"""
REMOTE = """
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, AutoModelForSequenceClassification
for folder in sys.argv[1:]:
    assert AutoConfig.from_pretrained(folder, trust_remote_code=True).model_type.startswith("bcos_")
    assert type(AutoModel.from_pretrained(folder, trust_remote_code=True)).__name__.endswith("Model")
    inputs = torch.load(folder + "/inputs.pt")
    auto = AutoModelForImageClassification if "pixel_values" in inputs else AutoModelForSequenceClassification
    model = auto.from_pretrained(folder, trust_remote_code=True)
    explanation = model.explain(**inputs)
    explanation.save(folder + "/remote.safetensors")
    model.save_pretrained(folder + "/again")
    again = auto.from_pretrained(folder + "/again", trust_remote_code=True)
    assert torch.equal(again(**inputs).logits, explanation.logits)
assert "bcos_hf" not in sys.modules
"""


def run_without_bcos_hf(folder, script, names):
    """Run `script` on the folders `names` in `folder` in a process that cannot import bcos_hf; it must end well."""
    (folder / "load.py").write_text(WITHOUT_BCOS_HF + script)
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home"), "HF_MODULES_CACHE": str(folder / "modules")}
    command = [sys.executable, "load.py", *map(str, (folder / name for name in names))]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_remote_code_needs_no_bcos_hf(tmp_path):
    models = {}
    for family in SIZES:
        models[family] = bcosify(tiny(family)).float().eval()
        models[family].save_pretrained(tmp_path / family)
        inputs = {name: value.float() if value.is_floating_point() else value for name, value in batch_of(family).items()}
        torch.save(inputs, tmp_path / family / "inputs.pt")
    run_without_bcos_hf(tmp_path, REMOTE, SIZES)
    for family, model in models.items():
        remote = Explanation.load(tmp_path / family / "remote.safetensors")
        here = model.explain(**torch.load(tmp_path / family / "inputs.pt"))
        assert torch.equal(remote.logits, here.logits) and torch.equal(remote.contributions, here.contributions)
