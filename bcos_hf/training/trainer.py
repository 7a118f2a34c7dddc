"""transformers' Trainer with the loss of B-cos networks, and the steps that all recipes share."""

from functools import partial
from pathlib import Path

import numpy as np
from accelerate import PartialState
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import rotate_checkpoints
from transformers.utils import logging

from bcos_hf.hub.card import model_card
from bcos_hf.hub.conversion_record import save_conversion
from bcos_hf.hub.push import existing_card
from bcos_hf.models.bcos_loading import check_tensors
from bcos_hf.models.bcos_writing import write_text
from bcos_hf.models.modeling_bcos import BcosModelMixin

from .losses import NUMBERS, bcos_loss
from .output_distillation import OutputTeacher
from .run_record import amiss, check_same_run, last_whole_checkpoint, record, recorded, run_settings


logger = logging.get_logger(__name__)


class _EpochCallback(TrainerCallback):
    """Tells a data set its epoch: under several processes, the data loader tells the sampler alone."""

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        dataset = getattr(train_dataloader, "dataset", None)
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int((state.epoch or 0) + 1e-6))


class _WholeCallback(TrainerCallback):
    """Says of a checkpoint that it is whole, when all that others write is there; older ones are deleted only then."""

    def __init__(self, settings: dict) -> None:
        self.settings = settings

    def on_save(self, args, state, control, **kwargs):
        PartialState().wait_for_everyone()
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        if not state.is_world_process_zero or not folder.is_dir():
            return
        record(folder, self.settings, whole=True)
        rotate_checkpoints(args.output_dir, args.save_total_limit, state.best_model_checkpoint, use_mtime=True)


class BcosTrainer(Trainer):
    """Trainer with `bcos_loss`: binary cross entropy of one class or of several, squared error of numbers, as problem_type, num_labels and labels say.

    `off_labels`: "zero" (texts) or "uniform" (vision); None: the model's own loss. A `compute_loss_func` is used in its place, as Trainer does it.
    `batch_augmentation`: (pixel_values, labels) -> the same, mixed. `teacher`: what the student's classes are compared with in training, beside the labels.
    `settings`: dataclasses that model and data were made from; checkpoints carry them, and go on under the same ones alone (see `run_record`).

    Gradient accumulation: the loss is the mean of each micro-batch, so Trainer must divide it by their number (`loss_is_scaled_for_ga`).

    Streams under several processes: in training each process reads its own part of the files; in evaluation the first one reads and hands out, so that
    all have as many batches. Set accelerator_config's dispatch_batches to have it another way.

    Raises:
        ValueError: two losses at once (`compute_loss_func` beside label_smoothing_factor, a `teacher` or a model's own loss_function beside off_labels), or
            labels that the loss cannot take as they are.
    """

    def __init__(
        self,
        *args,
        off_labels: str | None = "zero",
        batch_augmentation=None,
        teacher: OutputTeacher | None = None,
        settings: list | None = None,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.off_labels, self.batch_augmentation = off_labels, batch_augmentation
        self._check_one_loss(teacher)
        self.output_teacher = None if teacher is None else teacher.to(self.args.device)
        if self.label_smoother is not None and _predicts_next(self.model):
            self.label_smoother = partial(self.label_smoother, shift_labels=True)  # which Trainer does for transformers' own classes alone
        if self._bcos:
            self.model_accepts_loss_kwargs = False
            self.loss_is_scaled_for_ga = False
        self.add_callback(_EpochCallback())
        self.run_settings = run_settings(self.args, settings, self.model, self.train_dataset)
        if settings is None:
            self.run_settings["off_labels"] = off_labels

    def train(self, resume_from_checkpoint: str | bool | None = None, *args, **kwargs):
        """As Trainer's; a checkpoint is gone on with if it is whole and of the same run. True: the last whole one.

        Raises:
            ValueError: other settings than the checkpoint was made with, by name, or no checkpoint where one is asked for.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_whole_checkpoint(self.args.output_dir)
            if resume_from_checkpoint is None:
                raise ValueError(f"resume_from_checkpoint: expected a whole checkpoint in {self.args.output_dir}, found none.")
        if resume_from_checkpoint:
            found = recorded(resume_from_checkpoint)
            if found is not None and (lacking := amiss(Path(resume_from_checkpoint))):
                raise ValueError(f"{resume_from_checkpoint}: expected a whole checkpoint, but {lacking}. Go on from an earlier one.")
            check_same_run(resume_from_checkpoint, self.run_settings)
            resume_from_checkpoint = self.args.resume_from_checkpoint = str(resume_from_checkpoint)
            logger.warning(f"Training goes on from {resume_from_checkpoint}.")
        self.remove_callback(_WholeCallback)
        self.add_callback(_WholeCallback(self.run_settings))  # the last of all
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _save_checkpoint(self, model, trial) -> None:
        """As Trainer's, but for the deletion of older ones, for which it is too early: this one is not whole yet."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit

    def _issue_warnings_after_load(self, load_result) -> None:
        """A checkpoint with other tensors than the model's is an error."""
        tied = getattr(self.model, "all_tied_weights_keys", None) or {}
        check_tensors("the checkpoint", set(load_result.missing_keys) - set(tied), set(load_result.unexpected_keys))
        self.model.tie_weights()

    @property
    def _bcos(self) -> bool:
        """Whether the loss is `bcos_loss`."""
        return self.off_labels is not None and self.compute_loss_func is None

    def _check_one_loss(self, teacher: OutputTeacher | None) -> None:
        smoothing = self.args.label_smoothing_factor
        if self.compute_loss_func is not None and (smoothing or teacher is not None):
            given = f"label_smoothing_factor {smoothing}" if smoothing else "a teacher"
            raise ValueError(f"compute_loss_func: expected it alone, as it is the whole loss; got {given} beside it. Make it a part of the function.")
        if teacher is not None and self.off_labels is None:
            raise ValueError("teacher: expected off_labels 'zero' or 'uniform', as the model's own loss is made inside the model; got None.")
        if self._bcos and hasattr(self.model, "_loss_function"):
            raise ValueError("model.loss_function was set, and off_labels asks for another loss: set off_labels=None to train with the model's own.")

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The mean loss of the batch; `num_items_in_batch` is left to Trainer's own division, but for a model's own loss and a `compute_loss_func`."""
        if not self._bcos:
            self._check_smoothing(inputs)
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        inputs = dict(inputs)
        labels = inputs.pop(self._label_name(inputs))
        outputs = model(**inputs)
        logits = outputs.get("logits") if isinstance(outputs, dict) else None
        if logits is None:
            raise ValueError(f"expected a model with logits, got a {type(self.model).__name__}. Set off_labels=None to train with the model's own loss.")
        problem = getattr(self.model.config, "problem_type", None)
        counted = (logits[:, :-1], labels[:, 1:]) if _predicts_next(self.model) else (logits, labels)
        loss = bcos_loss(*counted, self.off_labels, problem, self.args.label_smoothing_factor)
        if self.output_teacher is not None and model.training:
            loss = loss + self.output_teacher(inputs, logits, labels, problem)
        return (loss, outputs) if return_outputs else loss

    def _label_name(self, inputs: dict) -> str:
        """What the labels are called: "labels", or the one name in label_names."""
        name = "labels" if "labels" in inputs or len(self.label_names) != 1 else self.label_names[0]
        if name not in inputs:
            raise ValueError(f"expected {name!r} in the batch, got {sorted(inputs)}. Name another in label_names, or set off_labels=None.")
        return name

    def _check_smoothing(self, inputs: dict) -> None:
        labels = inputs.get("labels")
        numbers = isinstance(labels, Tensor) and (labels.is_floating_point() or getattr(self.model.config, "problem_type", None) == NUMBERS)
        if self.label_smoother is not None and numbers:
            raise ValueError(f"label_smoothing_factor {self.args.label_smoothing_factor}: expected class numbers as labels, got numbers. Set it to 0.")

    def training_step(self, model, inputs, num_items_in_batch=None):
        """A step on the batch, mixed if there is a `batch_augmentation`."""
        if self.batch_augmentation is not None:
            pixel_values, labels = self.batch_augmentation(inputs["pixel_values"], inputs["labels"])
            inputs = {**inputs, "pixel_values": pixel_values, "labels": labels}
        return super().training_step(model, inputs, num_items_in_batch)

    def get_train_dataloader(self):
        """As Trainer's; a process reads its own part of a stream."""
        config = self.accelerator.dataloader_config
        given = config.dispatch_batches
        if given is None and isinstance(self.train_dataset, IterableDataset):
            config.dispatch_batches = False
        try:
            return super().get_train_dataloader()
        finally:
            config.dispatch_batches = given

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        """As Trainer's; with the record of the conversion, which a model that is loaded again does not know."""
        super()._save(output_dir, state_dict)
        model = self.accelerator.unwrap_model(self.model)
        if isinstance(model, BcosModelMixin):
            save_conversion(output_dir or self.args.output_dir, model)
        record(output_dir or self.args.output_dir, self.run_settings)

    def create_model_card(self, *args, **kwargs) -> None:
        """Write our card; of one that is there, a person's text stays. A conventional model gets transformers' own, where there is none."""
        path = Path(self.args.output_dir, "README.md")
        model = self.accelerator.unwrap_model(self.model)
        if not self.is_world_process_zero():
            return
        if not isinstance(model, BcosModelMixin):
            if not path.exists():
                super().create_model_card(*args, **kwargs)
            return
        last = next((entry for entry in reversed(self.state.log_history) if any(name.startswith("eval_") for name in entry)), {})
        metrics = {name.removeprefix("eval_"): value for name, value in last.items() if name.startswith("eval_") and "_per_second" not in name}
        training = {"steps": self.state.global_step, "batch": self.args.train_batch_size * self.args.world_size, "seed": self.args.seed}
        training |= {"learning_rate": self.args.learning_rate, "schedule": str(self.args.lr_scheduler_type.value)}
        pushed = existing_card(self.hub_model_id, self.args.hub_token) if self.hub_model_id else None
        existing = path.read_text(encoding="utf-8") if pushed is None and path.exists() else pushed
        write_text(path, model_card(model, self.hub_model_id or path.parent.name, existing, None, metrics, training))


def _predicts_next(model) -> bool:
    """Whether the logits of a model are those of the next token."""
    return type(model).__name__.endswith(("ForCausalLM", "LMHeadModel"))


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
        check_same_run(args.output_dir, trainer.run_settings)  # a model that was trained without checkpoints is not lost either
    return last
