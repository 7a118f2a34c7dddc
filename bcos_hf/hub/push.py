"""Push a model with all that a stranger needs: weights, code, processor, card, an explained example, and records of conversion and evaluation.

Everything is made and checked in a temporary folder first: the saved model must load and, where there is an example, explain it. Nothing is pushed when a
check fails.
"""

import json
import tempfile
from pathlib import Path

import torch
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from bcos_hf.models import unwrapped
from bcos_hf.models.bcos_processors import image_channels
from bcos_hf.models.bcos_writing import write_bytes, write_json, write_text

from .card import model_card
from .conversion_record import save_conversion
from .exactness import exactness
from .usage import run_usage, takes_image


EVALUATION = "bcos_eval.json"


def write_model_folder(
    folder: Path, model, repo_id: str, processors=(), existing: str | None = None, example: str | Path | None = None, metrics: dict | None = None, **facts
) -> None:
    """Fill `folder` with what is pushed; see `push`. Raises a RuntimeError where the saved model does not load, is not exact, or its example does not run."""
    model.save_pretrained(folder)
    for processor in processors:
        processor.save_pretrained(folder)
    if example is not None and takes_image(model):
        from bcos_hf.data.image_files import decode  # here, as data needs this folder

        decode(Path(example).read_bytes(), image_channels(model.config)).save(folder / "example.png")
        example = folder / "example.png"
    loaded, ours = type(model).from_pretrained(folder), model.state_dict()
    different = [name for name, value in loaded.state_dict().items() if not torch.equal(value, ours[name].to(value.device))]
    if different:
        raise RuntimeError(f"{repo_id}: the saved model is not the one in memory ({different[:3]} differ), so nothing is pushed.")
    found = exactness(loaded)
    if found is not None and not found.exact:
        raise RuntimeError(f"{repo_id}: expected exact explanations, so nothing is pushed; bcos_hf.verify says: {found}.")
    usage = None if example is None else run_usage(model, folder, repo_id, example)
    if usage is not None and usage.figure:
        write_bytes(folder / "explanation.png", usage.figure)
    write_text(folder / "README.md", model_card(model, repo_id, existing, usage, metrics, **facts))
    save_conversion(folder, model)
    if metrics:
        save_evaluation(folder, metrics, facts.get("datasets"))


def save_evaluation(folder: str | Path, metrics: dict, datasets: list[str] | None = None) -> None:
    """Leave what was measured in a model's folder, as bcos_eval.json, for the card of its push. Arguments as those of `push`."""
    write_json(Path(folder, EVALUATION), {"metrics": metrics, "datasets": datasets})


def recorded_evaluation(folder: str | Path) -> dict:
    """What `save_evaluation` left in a model's folder, as `push` takes it; {} where there is nothing. Raises a ValueError for another file of that name."""
    file = Path(folder, EVALUATION)
    if not file.is_file():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or not {"metrics", "datasets"} == set(found):
        raise ValueError(f"{file}: expected an object with 'metrics' and 'datasets', got {str(found)[:80]}. Repair or remove it.")
    return found


def existing_card(repo_id: str, token: str | None = None, repo_type: str = "model") -> str | None:
    """The card of a repository, None where there is no such file or repository."""
    try:
        return Path(hf_hub_download(repo_id, "README.md", token=token, repo_type=repo_type)).read_text(encoding="utf-8")
    except (EntryNotFoundError, RepositoryNotFoundError):
        return None


def push(
    model, repo_id: str, processors=(), example: str | Path | None = None, metrics: dict | None = None, training: dict | None = None,
    datasets: list[str] | None = None, license: str | None = None, private: bool | None = None, token: str | None = None, commit_message: str | None = None,
) -> str:  # fmt: skip
    """Push a B-cos model to the Hub; returns the address of the commit.

    Args:
        processors: tokenizer, image processor or processor, to be saved beside it.
        example: a text, or the path of a picture, that the card explains; the code that it shows is run first.
        metrics: name -> number or {"mean", "low", "high"}, for card and bcos_eval.json. training: settings for the card. datasets: Hub ids.
        license: None: the one that the base model's card names.

    Raises:
        RuntimeError: a check failed; nothing was pushed. huggingface_hub's errors: the Hub refused.
    """
    model = unwrapped(model)
    if not hasattr(model, "explain"):
        raise TypeError(f"push: expected a B-cos model, got a {type(model).__name__}. Convert it with bcos_hf.bcosify.")
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        facts = {"training": training, "datasets": datasets, "license": license}
        write_model_folder(folder, model, repo_id, processors, existing_card(repo_id, token), example, metrics, **facts)
        ModelCard.load(folder / "README.md").validate()
        api.create_repo(repo_id, private=private, exist_ok=True)
        return api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message or "Upload B-cos model").commit_url
