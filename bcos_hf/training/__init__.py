"""Training: the loss, the trainer, its callbacks, and the recipes' steps for text and images."""

from .arguments import CLIPArguments, DataArguments, ImageDataArguments, ImageModelArguments, ModelArguments, PictureArguments, parse, yaml_settings
from .averaging import AveragingCallback
from .callbacks import BiasDecayCallback, BScheduleCallback, ExplanationCallback
from .causal_lm import CausalModelArguments, RunningTextArguments, causal_lm_trainer
from .clip import clip_inputs, clip_trainer, load_teacher, save_text_side, student_of, text_side
from .clipping import AdaptiveClippingCallback, adaptive_clip_grad_
from .distillation import DistillationTrainer
from .embedding_losses import EMBEDDING_LOSSES, siglip_loss
from .head_first import HeadFirst, head_inputs, head_of, train_head_
from .image import image_inputs, image_trainer
from .losses import bce_loss, bcos_loss
from .once import done_once, earlier_result, own_folder
from .output_distillation import OutputTeacher, between_processors, check_teacher, output_divergence
from .pairing import fit_projections, image_tower_features, text_tower_features
from .text import text_trainer
from .trainer import BcosTrainer, train_and_test


__all__ = [
    "EMBEDDING_LOSSES",
    "AdaptiveClippingCallback",
    "AveragingCallback",
    "BScheduleCallback",
    "BcosTrainer",
    "BiasDecayCallback",
    "CLIPArguments",
    "CausalModelArguments",
    "DataArguments",
    "DistillationTrainer",
    "ExplanationCallback",
    "HeadFirst",
    "ImageDataArguments",
    "ImageModelArguments",
    "ModelArguments",
    "OutputTeacher",
    "PictureArguments",
    "RunningTextArguments",
    "adaptive_clip_grad_",
    "bce_loss",
    "bcos_loss",
    "between_processors",
    "causal_lm_trainer",
    "check_teacher",
    "clip_inputs",
    "clip_trainer",
    "done_once",
    "earlier_result",
    "fit_projections",
    "head_inputs",
    "head_of",
    "image_inputs",
    "image_tower_features",
    "image_trainer",
    "load_teacher",
    "output_divergence",
    "own_folder",
    "parse",
    "save_text_side",
    "siglip_loss",
    "student_of",
    "text_side",
    "text_tower_features",
    "text_trainer",
    "train_and_test",
    "train_head_",
    "yaml_settings",
]
