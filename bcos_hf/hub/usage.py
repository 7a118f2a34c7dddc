"""How a model is used, as code that is run before it is shown: the example of a card, with what it printed."""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bcos_hf.models.bcos_saving import auto_class_of
from bcos_hf.models.bcos_writing import write_text


# code with room for the Auto class, the repository and the example
TEXT = (Path(__file__).parent / "usage_text.txt").read_text(encoding="utf-8").rstrip()
CAUSAL = (Path(__file__).parent / "usage_causal.txt").read_text(encoding="utf-8").rstrip()
IMAGE = (Path(__file__).parent / "usage_image.txt").read_text(encoding="utf-8").rstrip()
# Auto class -> (pipeline tag, code with an example; None: no logits that one text or picture has)
TASKS = {
    "AutoModelForSequenceClassification": ("text-classification", TEXT),
    "AutoModelForTokenClassification": ("token-classification", None),
    "AutoModelForMaskedLM": ("fill-mask", None),
    "AutoModelForCausalLM": ("text-generation", CAUSAL),
    "AutoModelForImageClassification": ("image-classification", IMAGE),
}


@dataclass
class Usage:
    """Code, and what it printed. `figure` is the PNG that it drew, if it draws one."""

    code: str
    output: str
    figure: bytes | None = None


def task_of(model) -> tuple[str, str | None]:
    """Pipeline tag of a model, and the code that shows its use."""
    if getattr(model, "zero_shot", False):
        return "zero-shot-image-classification", None
    modality = "image-feature-extraction" if getattr(model, "main_input_name", "") == "pixel_values" else "feature-extraction"
    return TASKS.get(auto_class_of(type(model)), (modality, None))


def run_usage(model, folder: Path, repo_id: str, example: str | Path) -> Usage:
    """The code for `repo_id`, run on the saved model in `folder` in a process of its own. `example` is a text, or the path of a picture.

    Raises:
        RuntimeError: it failed, with what it said: a folder that cannot be used is not one to push.
    """
    _, template = task_of(model)
    auto = auto_class_of(type(model))
    picture = template is IMAGE
    shown = template.format(auto=auto, repo=repo_id, example="example.png" if picture else str(example))
    run = template.format(auto=auto, repo=str(folder.resolve()), example=str(Path(example).resolve()) if picture else str(example))
    with tempfile.TemporaryDirectory() as place:
        write_text(Path(place, "usage.py"), run)
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))}
        done = subprocess.run([sys.executable, "usage.py"], cwd=place, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{folder}: the example of its card does not run, so nothing is pushed:\n{done.stderr[-2000:]}")
        figure = Path(place, "why.png")
        return Usage(shown, done.stdout.strip(), figure.read_bytes() if figure.exists() else None)
