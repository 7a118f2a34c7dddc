"""How a model is used, as code that is run before it is shown: the example of a card, with what it printed."""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoImageProcessor

from bcos_hf.models.bcos_processors import image_channels, saved_processor
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


def takes_image(model) -> bool:
    """Whether the example of a model's card is an image."""
    return task_of(model)[1] is IMAGE


def _reading(model, folder: Path) -> dict[str, str]:
    """How an image is read for a model in `folder`, and shown in its colors, as code."""
    mode = "L" if image_channels(model.config) == 1 else "RGB"
    try:
        normalizes = saved_processor(AutoImageProcessor, folder).do_normalize
    except OSError as error:
        raise RuntimeError(f"the example does not run: {error}") from error
    colors = "mean=processor.image_mean, std=processor.image_std" if normalizes else "mean=0.0, std=1.0"
    return {"mode": mode, "colors": colors}


def run_usage(model, folder: Path, repo_id: str, example: str | Path) -> Usage:
    """The code for `repo_id`, run on the saved model in `folder` in a process of its own. `example` is a text, or the path of a picture.

    Raises:
        RuntimeError: it failed, with what it said: a folder that cannot be used is not one to push.
    """
    _, template = task_of(model)
    auto = auto_class_of(type(model))
    if template is None:
        raise ValueError(f"example: expected none, as a {type(model).__name__} has no logits of one text or image; got {example!r}.")
    picture = template is IMAGE
    reading = _reading(model, folder) if picture else {}
    shown = template.format(auto=auto, repo=repo_id, example="example.png" if picture else str(example), **reading)
    run = template.format(
        auto=auto,
        repo=str(folder.resolve()),
        example=str(Path(example).resolve()) if picture else str(example),
        **reading,
    )
    with tempfile.TemporaryDirectory() as place:
        write_text(Path(place, "usage.py"), run)
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))}
        done = subprocess.run([sys.executable, "usage.py"], cwd=place, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{folder}: the example of its card does not run, so nothing is pushed:\n{done.stderr[-2000:]}")
        figure = Path(place, "why.png")
        return Usage(shown, done.stdout.strip(), figure.read_bytes() if figure.exists() else None)
