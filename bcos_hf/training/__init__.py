"""Training: the loss, the trainer, its callbacks, and the recipes' steps for text and images."""

from .arguments import DataArguments, ImageDataArguments, ImageModelArguments, ModelArguments, parse, yaml_settings
from .averaging import AveragingCallback
from .callbacks import BiasDecayCallback, BScheduleCallback, ExplanationCallback
from .clipping import AdaptiveClippingCallback, adaptive_clip_grad_
from .image import image_inputs, image_trainer
from .losses import bce_loss
from .once import done_once
from .text import text_trainer
from .trainer import BcosTrainer, train_and_test


__all__ = [
    "AdaptiveClippingCallback",
    "AveragingCallback",
    "BScheduleCallback",
    "BcosTrainer",
    "BiasDecayCallback",
    "DataArguments",
    "ExplanationCallback",
    "ImageDataArguments",
    "ImageModelArguments",
    "ModelArguments",
    "adaptive_clip_grad_",
    "bce_loss",
    "done_once",
    "image_inputs",
    "image_trainer",
    "parse",
    "text_trainer",
    "train_and_test",
    "yaml_settings",
]
