"""transformers' Trainer with the loss of B-cos networks, and the steps that all recipes share."""

from pathlib import Path

import numpy as np
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from bcos_hf.hub.card import model_card
from bcos_hf.hub.conversion_record import save_conversion
from bcos_hf.hub.push import existing_card
from bcos_hf.models.bcos_writing import write_text
from bcos_hf.models.modeling_bcos import BcosModelMixin

from .losses import bce_loss
from .output_distillation import OutputTeacher


class _EpochCallback(TrainerCallback):
    """Tells a data set its epoch: under several processes, the data loader tells the sampler alone."""

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        dataset = getattr(train_dataloader, "dataset", None)
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int((state.epoch or 0) + 1e-6))


class BcosTrainer(Trainer):
    """Trainer with `bce_loss`.

    `off_labels`: "zero" (texts) or "uniform" (vision); None: the model's own loss. `batch_augmentation`: (pixel_values, labels) -> the same, mixed.
    `teacher`: what the student's classes are compared with in training, beside the labels.

    Gradient accumulation: the loss is the mean of each micro-batch, so Trainer must divide it by their number (`loss_is_scaled_for_ga`).

    Streams under several processes: in training each process reads its own part of the files; in evaluation the first one reads and hands out, so that
    all have as many batches. Set accelerator_config's dispatch_batches to have it another way.
    """

    def __init__(self, *args, off_labels: str | None = "zero", batch_augmentation=None, teacher: OutputTeacher | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.off_labels, self.batch_augmentation = off_labels, batch_augmentation
        self.output_teacher = None if teacher is None else teacher.to(self.args.device)
        if teacher is not None and off_labels is None:
            raise ValueError("teacher: expected off_labels 'zero' or 'uniform', as the model's own loss is made inside the model; got None.")
        if off_labels is not None:
            self.model_accepts_loss_kwargs = False
            self.loss_is_scaled_for_ga = False
        self.add_callback(_EpochCallback())

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Mean binary cross entropy; `num_items_in_batch` is left to Trainer's own division."""
        if self.off_labels is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = bce_loss(outputs["logits"], labels, self.off_labels)
        if self.output_teacher is not None and model.training:
            loss = loss + self.output_teacher(inputs, outputs["logits"], labels)
        return (loss, outputs) if return_outputs else loss

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


def accuracy(prediction) -> dict[str, float]:
    """Share of right predictions, for Trainer; labels of -100 are not counted."""
    counted = prediction.label_ids != -100
    return {"accuracy": float((np.asarray(prediction.predictions).argmax(-1) == prediction.label_ids)[counted].mean())}


def train_and_test(trainer: BcosTrainer, data) -> dict[str, float]:
    """Train (from the last checkpoint in output_dir, if there is one), save, and measure the test split, if there is one. All processes call it."""
    args = trainer.args
    if args.do_train:
        last = (
            get_last_checkpoint(args.output_dir)
            if Path(args.output_dir).is_dir() and args.resume_from_checkpoint in (None, "true", "True")
            else args.resume_from_checkpoint
        )
        trainer.train(resume_from_checkpoint=last)
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
