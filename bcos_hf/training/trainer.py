"""transformers' Trainer with the loss of B-cos networks, and a model card that is not written over."""

from pathlib import Path

from transformers import Trainer

from .losses import bce_loss


class BcosTrainer(Trainer):
    """Trainer with `bce_loss`. `off_labels`: "zero" (language models) or "uniform" (vision).

    Gradient accumulation: the loss is the mean of each micro-batch, so Trainer must divide it by their number (`loss_is_scaled_for_ga`).
    """

    def __init__(self, *args, off_labels: str = "zero", **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.off_labels = off_labels
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = False

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Mean binary cross entropy; `num_items_in_batch` is left to Trainer's own division."""
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = bce_loss(outputs["logits"], labels, self.off_labels)
        return (loss, outputs) if return_outputs else loss

    def create_model_card(self, *args, **kwargs) -> None:
        """Write transformers' card only where there is none."""
        if not Path(self.args.output_dir, "README.md").exists():
            super().create_model_card(*args, **kwargs)
