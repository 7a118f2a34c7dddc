"""On a Hub on loopback: pushed models load by name, through the Auto classes here and as remote code where there is no bcos_hf."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import batch_of, tiny
from loopback_hub import loopback_hub
from test_image_text import pictures_for, prompts, standard_of
from test_saving import WITHOUT_BCOS_HF

from bcos_hf import Explanation, bcosify


MODELS = {"vit": "AutoModelForImageClassification", "bert": "AutoModelForSequenceClassification", "clip": "AutoModelForZeroShotImageClassification"}
REMOTE = """
import transformers
from PIL import Image
import numpy as np
for name, auto in [pair.split("=") for pair in sys.argv[1:]]:
    inputs = torch.load(f"{name}.pt")
    assert transformers.AutoConfig.from_pretrained(f"org/bcos-{name}", trust_remote_code=True).model_type == f"bcos_{name}"
    model = getattr(transformers, auto).from_pretrained(f"org/bcos-{name}", trust_remote_code=True)
    model.explain(**inputs).save(f"{name}.safetensors")
    assert type(transformers.AutoModel.from_pretrained(f"org/bcos-{name}", trust_remote_code=True)).__name__.endswith("Model")
picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8))
classify = transformers.pipeline("image-classification", "org/bcos-vit", trust_remote_code=True)
torch.save({answer["label"]: answer["score"] for answer in classify(picture)}, "pipeline.pt")
assert "bcos_hf" not in sys.modules
"""
PUSH = """
import sys
import bcos_hf, transformers
for name, auto in [pair.split("=") for pair in sys.argv[1:]]:
    model = getattr(transformers, auto).from_pretrained(name)
    model.push_to_hub(f"org/bcos-{name}")
    if name == "vit":
        transformers.AutoImageProcessor.from_pretrained(name, backend="pil").push_to_hub("org/bcos-vit")
"""


def run_script(folder, endpoint, script, *arguments):
    """Run `script` in `folder` in a process whose Hub is at `endpoint`; it must end well."""
    (folder / "script.py").write_text(script)
    home = {"HF_HOME": str(folder / "home"), "HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_DISABLE_XET": "1"}
    env = {**os.environ, **home, "HF_ENDPOINT": endpoint, "HF_TOKEN": "hf_test", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "script.py", *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """A folder with three small models, which are on the Hub, their inputs, and the Hub."""
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    folder, models = tmp_path_factory.mktemp("hub"), {}
    for name in MODELS:
        models[name] = bcosify(standard_of(name) if name == "clip" else tiny(name)).float()
        models[name].save_pretrained(folder / name)
        inputs = {"pixel_values": pictures_for(name), **prompts(name)} if name == "clip" else batch_of(name)
        torch.save({key: value.float() if value.is_floating_point() else value for key, value in inputs.items()}, folder / f"{name}.pt")
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder / "vit")
    with loopback_hub() as hub:
        run_script(folder, hub.endpoint, PUSH, *(f"{name}={auto}" for name, auto in MODELS.items()))
        yield folder, models, hub


def test_what_is_pushed_is_what_was_saved(pushed):
    folder, _, hub = pushed
    for name in MODELS:
        files = hub.repositories[f"models/org/bcos-{name}"]
        assert files["model.safetensors"] == (folder / name / "model.safetensors").read_bytes()
        assert {path.name for path in (folder / name).glob("*.py")} == {path for path in files if path.endswith(".py")}
        assert not [path for path in files if path.endswith((".bin", ".pt", ".pkl"))]


def test_remote_code_from_the_hub_gives_the_same_bit_for_bit(pushed):
    folder, models, hub = pushed
    run_script(folder, hub.endpoint, WITHOUT_BCOS_HF + REMOTE, *(f"{name}={auto}" for name, auto in MODELS.items()))
    for name, model in models.items():
        there, here = Explanation.load(folder / f"{name}.safetensors"), model.explain(**torch.load(folder / f"{name}.pt"))
        assert torch.equal(there.logits, here.logits) and torch.equal(there.contributions, here.contributions)
    assert sum(torch.load(folder / "pipeline.pt").values()) == pytest.approx(1, abs=1e-5)
