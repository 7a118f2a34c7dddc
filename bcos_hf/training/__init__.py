"""Training: the loss, the trainer, its callbacks, and the text recipe's steps."""

from .arguments import DataArguments, ModelArguments, parse
from .callbacks import BScheduleCallback, ExplanationCallback
from .losses import bce_loss
from .text import text_trainer, train_and_test
from .trainer import BcosTrainer


__all__ = [
    "BScheduleCallback",
    "BcosTrainer",
    "DataArguments",
    "ExplanationCallback",
    "ModelArguments",
    "bce_loss",
    "parse",
    "text_trainer",
    "train_and_test",
]
