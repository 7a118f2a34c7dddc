"""On a Hub on loopback: pushed models load by name, through the Auto classes here and as remote code where there is no bcos_hf."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import batch_of, tiny
from loopback_hub import loopback_hub
from PIL import Image
from test_image_text import pictures_for, prompts, standard_of
from test_saving import WITHOUT_BCOS_HF

from bcos_hf import Explanation, bcosify
from bcos_hf.hub.card_text import merged_card, split_card


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


TRAIN = """
from pathlib import Path
from huggingface_hub import HfApi
import torch, transformers
from bcos_hf import bcosify
from bcos_hf.training import BcosTrainer
model = bcosify(transformers.AutoModelForImageClassification.from_pretrained("plain-vit"))
rows = [{"pixel_values": torch.randn(3, 16, 16), "labels": i % 3} for i in range(6)]
args = transformers.TrainingArguments("trained", max_steps=2, push_to_hub=True, hub_model_id="org/trained", use_cpu=True, report_to="none", save_strategy="no")
trainer = BcosTrainer(model=model, args=args, train_dataset=rows, eval_dataset=rows)
trainer.train()
trainer.evaluate()
trainer.push_to_hub()
card = Path("trained", "README.md").read_text() + "A person's last words.\\n"
HfApi().upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id="org/trained")
trainer.push_to_hub()
"""


def run_script(folder, endpoint, script, *arguments):
    """Run `script` in `folder` in a process whose Hub is at `endpoint`; it must end well."""
    (folder / "script.py").write_text(script)
    home = {"HF_HOME": str(folder / "home"), "HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_DISABLE_XET": "1"}
    env = {**os.environ, **home, "HF_ENDPOINT": endpoint, "HF_TOKEN": "hf_test", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "script.py", *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """A folder with three small models, which are on the Hub beside one that a trainer pushed, their inputs, and the Hub."""
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    folder, models = tmp_path_factory.mktemp("hub"), {}
    for name in MODELS:
        models[name] = bcosify(standard_of(name) if name == "clip" else tiny(name)).float()
        models[name].save_pretrained(folder / name)
        inputs = {"pixel_values": pictures_for(name), **prompts(name)} if name == "clip" else batch_of(name)
        torch.save({key: value.float() if value.is_floating_point() else value for key, value in inputs.items()}, folder / f"{name}.pt")
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder / "vit")
    tiny("vit").float().save_pretrained(folder / "plain-vit")
    with loopback_hub() as hub:
        run_script(folder, hub.endpoint, PUSH + TRAIN, *(f"{name}={auto}" for name, auto in MODELS.items()))
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


SHARE = """
import json
from pathlib import Path
import torch, transformers
from bcos_hf import bcosify
from bcos_hf.hub import push
base = transformers.AutoModelForImageClassification.from_pretrained("org/base")
model = bcosify("org/base")
assert (model.config.base_model, len(model.config.base_revision)) == ("org/base", 40)
processor = transformers.AutoImageProcessor.from_pretrained("vit", backend="pil")
metrics = {"accuracy": 0.5, "grid_pointing_game": {"mean": 0.75, "low": 0.5, "high": 1.0}}
given = dict(processors=[processor], example="picture.png", metrics=metrics, training={"seed": 0}, datasets=["org/pictures"])
push(model, "org/shared", **given)
push(bcosify(transformers.AutoModelForSequenceClassification.from_pretrained("plain-bert")), "org/text", [tokenizer()], example="a <b>dog</b>.", license="mit")
try:
    push(model, "org/never", example="picture.png")  # without an image processor its example cannot run
except RuntimeError as error:
    assert "does not run" in str(error)
else:
    raise SystemExit("pushed what does not run")
"""
AGAIN = """
import sys
from bcos_hf.cli import main
from transformers import AutoModelForImageClassification
from bcos_hf.hub import push, save_evaluation
save_evaluation("vit", {"accuracy": {"mean": 0.375, "low": 0.25, "high": 0.5, "n": 8}}, ["org/pictures"])
push(AutoModelForImageClassification.from_pretrained("org/shared"), "org/shared", metrics={"accuracy": 0.625})
sys.argv = ["bcos-hf", "push", "vit", "org/cli", "--example", "picture.png", "--license", "mit"]
main()
"""
TOKENIZER = """
def tokenizer():
    Path("vocab.txt").write_text("\\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", ".", "b", "<", ">", "/"]))
    return transformers.BertTokenizerFast(vocab="vocab.txt")
"""


def test_a_card_is_filled_from_what_ran_and_keeps_what_a_person_wrote(pushed):
    folder, _, hub = pushed
    tiny("vit").float().save_pretrained(folder / "plain")
    hub.repositories["models/org/base"] = {path.name: path.read_bytes() for path in (folder / "plain").iterdir()}
    hub.repositories["models/org/base"]["README.md"] = b"---\nlicense: cc-by-4.0\n---\n# base\n"
    tiny("bert").float().save_pretrained(folder / "plain-bert")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(folder / "picture.png")
    run_script(folder, hub.endpoint, "from pathlib import Path\nimport transformers\n" + TOKENIZER + SHARE)
    assert "models/org/never" not in hub.repositories
    files = hub.repositories["models/org/shared"]
    wanted = {"README.md", "bcos_conversion.json", "bcos_eval.json", "example.png", "explanation.png", "model.safetensors", "preprocessor_config.json"}
    assert wanted <= set(files)
    record = json.loads(files["bcos_conversion.json"])
    assert record["base_model"] == "org/base" and record["converted"] and record["dropped"]
    metadata, body = split_card(files["README.md"].decode())
    assert (metadata["license"], metadata["base_model"], metadata["base_model_relation"]) == ("cc-by-4.0", "org/base", "finetune")
    assert metadata["pipeline_tag"] == "image-classification" and {"b-cos", "bcos_vit"} <= set(metadata["tags"])
    assert [result["value"] for result in metadata["model-index"][0]["results"][0]["metrics"]] == [0.5, 0.75]
    assert re.search(r"LABEL_\d -?\d\.\d{3} = -?\d\.\d{3} \(pixels\) \+", body) and "0.75 (0.5 to 1)" in body and 'from_pretrained("org/shared")' in body
    text_metadata, text = split_card(hub.repositories["models/org/text"]["README.md"].decode())
    assert text_metadata["license"] == "mit" and "(constant)" in text and "a <b>dog</b>." in text
    card = files["README.md"].decode().replace("tags:", "language: en\ntags:")
    files["README.md"] = card.replace("---\n\n", "---\n\nA person wrote this.\n\n", 1).encode()
    run_script(folder, hub.endpoint, AGAIN)
    metadata, body = split_card(files["README.md"].decode())
    assert "A person wrote this." in body and metadata["language"] == "en" and "0.625" in body and "grid pointing game" not in body
    assert body.count("bcos_hf:about") == 2
    by_hand = hub.repositories["models/org/cli"]
    assert b"license: mit" in by_hand["README.md"] and "explanation.png" in by_hand
    assert b"| accuracy | 0.375 (0.25 to 0.5) |" in by_hand["README.md"] and json.loads(by_hand["bcos_eval.json"])["datasets"] == ["org/pictures"]


def test_the_trainer_leaves_our_card(pushed):
    files = pushed[2].repositories["models/org/trained"]
    metadata, body = split_card(files["README.md"].decode())
    assert "A **B-cos** network" in body and "- steps: 2" in body and "| loss |" in body and metadata["library_name"] == "transformers"
    assert "modeling_bcos_vit.py" in files and "generated_from_trainer" not in metadata["tags"]
    assert b"A person's last words." in files["README.md"] and files["README.md"].count(b"A **B-cos** network") == 1


@pytest.mark.parametrize("card", ["---\n[1, 2]\n---\n", "---\na: [\n---\n"])
def test_a_broken_card_is_not_overwritten(card):
    with pytest.raises(ValueError, match="model card: expected"):
        merged_card(card, {}, {"about": "x"})


def test_blocks_are_replaced_where_they_are():
    first = merged_card(None, {"tags": ["b-cos"]}, {"about": "one", "limits": "none"})
    between = first.replace("<!-- bcos_hf:limits -->", "In between.\n<!-- bcos_hf:limits -->").replace("tags:", "widget: mine\ntags:\n- own")
    metadata, body = split_card(merged_card(between, {"tags": ["b-cos", "new"], "license": "mit"}, {"about": "a \\1 two", "usage": "code"}))
    assert metadata == {"widget": "mine", "tags": ["own", "b-cos", "new"], "license": "mit"}
    assert body.index("a \\1 two") < body.index("In between.") < body.index("none") < body.index("code") and "one" not in body.replace("none", "")
