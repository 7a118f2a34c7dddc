"""The steps that all recipes share: train, from where an earlier run was broken off, save, and measure."""

from pathlib import Path

import numpy as np

from .run_record import check_same_run, last_whole_checkpoint
from .trainer import BcosTrainer


def accuracy(prediction) -> dict[str, float]:
    """Share of right predictions, for Trainer; labels of -100 are not counted."""
    counted = prediction.label_ids != -100
    return {"accuracy": float((np.asarray(prediction.predictions).argmax(-1) == prediction.label_ids)[counted].mean())}


def train_and_test(trainer: BcosTrainer, data) -> dict[str, float]:
    """Train (from the last whole checkpoint in output_dir, if there is one), save, and measure the test split, if there is one. All processes call it.

    Raises:
        ValueError: output_dir has checkpoints, or a model, that were made with other settings, which are named.
    """
    args = trainer.args
    if args.do_train:
        trainer.train(resume_from_checkpoint=_checkpoint_to_go_on_from(trainer))
        trainer.save_model()
        trainer.save_state()
    metrics = {}
    if "test" in data:
        metrics = trainer.evaluate(data["test"], metric_key_prefix="test")
        trainer.save_metrics("test", metrics)
    # the wrapper of a distributed model must not outlive its process group: the last to go would wait for a thread of gloo that waits for Python
    trainer.model_wrapped = trainer.model
    trainer.accelerator.free_memory()
    return metrics


def _checkpoint_to_go_on_from(trainer: BcosTrainer) -> Path | str | None:
    """The one that `resume_from_checkpoint` names; "false": none; otherwise the last whole one of the same run, if there is any."""
    args = trainer.args
    asked = str(args.resume_from_checkpoint).lower()
    if asked not in ("none", "true", "false"):
        return args.resume_from_checkpoint
    args.resume_from_checkpoint = None
    if asked == "false":
        return None
    last = last_whole_checkpoint(args.output_dir)
    if last is None:
        check_same_run(
            args.output_dir, trainer.run_settings
        )  # a model that was trained without checkpoints is not lost either
    return last
