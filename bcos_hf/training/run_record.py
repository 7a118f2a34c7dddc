"""What a training was made with, and which of its checkpoints are whole, so that only the same run is gone on with, and from a checkpoint that is all there.

bcos_run.json lies in every checkpoint and beside the model at the end: the settings, and of a checkpoint the sizes of its files. Those are written last of
all, so that a checkpoint whose writing was broken off, or whose deletion was, does not agree with them.
"""

import hashlib
import json
import re
from dataclasses import asdict
from glob import glob
from pathlib import Path

from transformers import TrainingArguments
from transformers.utils import logging

from bcos_hf.models.bcos_writing import write_json


logger = logging.get_logger(__name__)

RUN = "bcos_run.json"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
# settings that say where, how fast and how loud, not what comes out
UNRELATED_STARTS = (
    "activation_checkpointing", "ddp_", "do_", "eval_", "gradient_checkpointing", "hub_", "log", "push_", "save_", "torch_", "trackio_",
)  # fmt: skip
UNRELATED = {
    "batch_eval_metrics", "bf16_full_eval", "dataloader_in_order", "dataloader_multiprocessing_context", "dataloader_num_workers",
    "dataloader_persistent_workers", "dataloader_pin_memory", "dataloader_prefetch_factor", "debug", "disable_tqdm", "enable_jit_checkpoint",
    "explain_samples", "fp16_full_eval", "full_determinism", "ignore_data_skip", "include_for_metrics", "include_num_input_tokens_seen", "label_names",
    "length_column_name", "local_rank", "max_eval_samples", "output_dir", "per_device_eval_batch_size", "prediction_loss_only", "project",
    "remove_unused_columns", "report_to", "restore_callback_states_from_checkpoint", "resume_from_checkpoint", "run_name",
    "skip_memory_metrics", "teacher_cache", "use_cache", "use_cpu",
}  # fmt: skip
# a run may be made longer, and is said to be
LENGTHS = ("max_steps", "num_train_epochs")
FILES = ("train_file", "validation_file", "test_file")
NOT_OF_THE_MODEL = ("_name_or_path", "architectures", "auto_map", "dtype", "transformers_version")


def run_settings(args: TrainingArguments, given: list | None, model, rows) -> dict:
    """What decides about the result of a training, of JSON types.

    Args:
        given: dataclasses of settings that model and data were made from; None: unknown, so that the model's configuration stands for them.
        rows: the training data.
    """
    values = args.to_dict() | {"processes": args.world_size}
    if hasattr(rows, "__len__"):
        values["training_rows"] = len(rows)
    for settings in given or []:
        values |= asdict(settings)
    values |= {f"content of {name}": _content(values[name]) for name in FILES if values.get(name)}
    if given is None:
        values |= {
            f"config.{name}": value for name, value in model.config.to_dict().items() if name not in NOT_OF_THE_MODEL
        }
        values["class"] = type(model).__name__
    kept = {
        name: value for name, value in values.items() if name not in UNRELATED and not name.startswith(UNRELATED_STARTS)
    }
    return json.loads(json.dumps(kept, default=str))


def _content(pattern: str) -> str:
    """A short hash of the files that a path or pattern means."""
    digest = hashlib.sha256()
    for file in sorted(glob(str(pattern))):
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def record(folder: str | Path, settings: dict, whole: bool = False) -> None:
    """Leave the settings in a folder; of a checkpoint that is `whole`, with the sizes of all its files."""
    folder = Path(folder)
    files = {
        file.relative_to(folder).as_posix(): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != RUN
    }
    write_json(folder / RUN, {"settings": settings, "files": files if whole else None})


def recorded(folder: str | Path) -> dict | None:
    """What `record` left there; None where there is nothing, or nothing that can be read."""
    try:
        found = json.loads(Path(folder, RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("settings"), dict) else None


def amiss(checkpoint: Path) -> str | None:
    """What a checkpoint lacks; None of a whole one."""
    found = recorded(checkpoint)
    if found is None or not isinstance(found.get("files"), dict):
        return f"{RUN} does not say that it is finished"
    for name, size in found["files"].items():
        file = checkpoint / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes, not {size}"
    return None


def checkpoints_of(folder: str | Path) -> list[Path]:
    """The checkpoints in a folder, the last one first."""
    inside = Path(folder).iterdir() if Path(folder).is_dir() else ()
    found = [(int(match[1]), path) for path in inside if (match := CHECKPOINT.fullmatch(path.name)) and path.is_dir()]
    return [path for _, path in sorted(found, reverse=True)]


def last_whole_checkpoint(folder: str | Path) -> Path | None:
    """The last checkpoint that is all there; later ones, which are not, are passed over with a warning."""
    for checkpoint in checkpoints_of(folder):
        lacking = amiss(checkpoint)
        if lacking is None:
            return checkpoint
        logger.warning(f"{checkpoint}: passed over, as its writing was broken off ({lacking}).")
    return None


def check_same_run(folder: str | Path, settings: dict) -> None:
    """Compare the settings with those that a checkpoint, or the model in a folder, was made with.

    Raises:
        ValueError: others, by name, with both values; only the length may grow, which is logged.
    """
    found = recorded(folder)
    if found is None:
        return
    before = found["settings"]
    changed = {
        name: (before[name], value) for name, value in settings.items() if name in before and before[name] != value
    }
    longer = {name for name, (old, new) in changed.items() if name in LENGTHS and 0 < old < new}
    if other := {name: pair for name, pair in changed.items() if name not in longer}:
        listed = "; ".join(f"{name}: {_shown(old)} there, {_shown(new)} now" for name, (old, new) in other.items())
        raise ValueError(
            f"{folder} was made with other settings, so it is not gone on with and nothing was changed. {listed}. Choose another output_dir, take the "
            "settings that are there, or train anew in its place with resume_from_checkpoint false."
        )
    for name in longer:
        logger.warning(
            f"{folder}: {name} was {changed[name][0]}, is {changed[name][1]} now: the run goes on, and schedules follow the new length."
        )


def _shown(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
