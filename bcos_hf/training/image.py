"""Train an image classifier: B-cosified, B-cos from scratch, or conventional, with everything else equal."""

from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForImageClassification, PreTrainedModel, TrainingArguments, set_seed

from bcos_hf.data.augmentation import Augmentation, mixup
from bcos_hf.data.image_inputs import image_processor, output_size, prepare_images
from bcos_hf.data.images import load_image_dataset
from bcos_hf.data.keras_resnet import resnet50_folder
from bcos_hf.data.onnx_vit import vit_s_folder
from bcos_hf.data.splits import label_fields
from bcos_hf.models import standard_of
from bcos_hf.models.bcos_bounds import saved_config

from .arguments import ImageDataArguments, ImageModelArguments
from .averaging import AveragingCallback
from .callbacks import BiasDecayCallback, BScheduleCallback, SynchronisedNormsCallback
from .clipping import AdaptiveClippingCallback
from .converting import converted, weight_norm_of
from .head_first import train_head_
from .losses import CLASSES
from .output_distillation import OutputTeacher, between_processors, check_teacher
from .resolution import at_size
from .running import accuracy
from .trainer import BcosTrainer
from .training_rows import image_batches


EMBEDDED = {"resnet50": resnet50_folder, "vit_s": vit_s_folder}
# configuration fields that are arguments by the same name; those left at None are the family's
FIELDS = (
    "b", "weight_norm", "keep_biases", "input_encoding", "head_before_pooling", "batch_norm", "max_pool", "inner_activation", "max_out", "logit_temperature",
)  # fmt: skip
LOGIT_BIASES = {"auto": "auto", "none": None}
# of B-cos v2 (Boehle et al., TPAMI 2024), where it differs from B-cosification
FROM_SCRATCH = {"weight_norm": "unit", "input_encoding": "add_inverse"}


def source_of(args: ImageModelArguments) -> str | Path:
    """The Hub id or folder that `args` names."""
    return EMBEDDED.get(args.model_name_or_path, lambda: args.model_name_or_path)()


def config_fields(args: ImageModelArguments) -> dict:
    """The fields of the B-cos configuration that `args` sets."""
    given = {name: getattr(args, name) for name in FIELDS if getattr(args, name) is not None}
    bias = LOGIT_BIASES[args.logit_bias] if args.logit_bias in LOGIT_BIASES else float(args.logit_bias)
    if (weight_norm := weight_norm_of(args)) is not None:
        given["weight_norm"] = weight_norm
    return {**(FROM_SCRATCH if args.from_scratch else {}), **given, "logit_bias": bias, "learnable_b": args.b_schedule == "learnable"}


def load_standard(args: ImageModelArguments, names: list[str], size: int | None = None) -> tuple[PreTrainedModel, set[str]]:
    """The standard model, in float32, with one label a name, for images of `size` pixels (None: of its own), and the names of its tensors that are random.

    A pretrained head of another number of classes is replaced by a random one.
    """
    labels = {**label_fields(names), "problem_type": CLASSES}
    if args.from_scratch:
        model = AutoModelForImageClassification.from_config(saved_config(source_of(args), **labels), dtype=torch.float32)
        new = set(model.state_dict())
    else:
        made = {"ignore_mismatched_sizes": True, "dtype": torch.float32, "output_loading_info": True, **labels}
        model, info = AutoModelForImageClassification.from_pretrained(source_of(args), **made)
        new = set(info["missing_keys"]) | {name for name, *_ in info["mismatched_keys"]}
    return (model if size is None else at_size(model, size)), new


def _teacher(
    args: ImageModelArguments, standard: PreTrainedModel, new: set[str], student: PreTrainedModel, processor, size: int | None, device
) -> OutputTeacher | None:
    """What `args` distills from: the standard model of the student, if nothing else is named."""
    if not args.distillation_weight:
        return None
    source = args.distillation_teacher or source_of(args)
    if args.distillation_teacher is not None:
        standard, new = standard_of(source, AutoModelForImageClassification)
        standard = standard if size is None else at_size(standard, size)
    teacher = check_teacher(deepcopy(standard), student, new)
    own = image_processor(source, teacher.config, getattr(teacher.config, "input_encoding", "normalized"), size)
    return OutputTeacher(teacher.to(device), args.distillation_weight, args.distillation_temperature, between_processors(processor, own))


def callbacks(args: ImageModelArguments) -> list:
    """What `args` asks for besides the loss and the data."""
    wanted = [
        (not args.conventional, lambda: BScheduleCallback(args.b_schedule, args.schedule_fraction)),
        (not args.conventional and args.bias_decay, lambda: BiasDecayCallback(args.schedule_fraction)),
        (args.adaptive_clipping, lambda: AdaptiveClippingCallback(args.adaptive_clipping)),
        (args.averaging_decay, lambda: AveragingCallback(args.averaging_decay)),
        (args.synchronise_norms, SynchronisedNormsCallback),
    ]
    return [make() for condition, make in wanted if condition]


def _load_data(d: ImageDataArguments, seed: int):
    return load_image_dataset(
        d.dataset_name, d.dataset_config_name, d.train_file, d.validation_file, d.test_file, d.dataset_revision, d.image_column, d.label_column,
        d.max_train_samples, d.max_eval_samples, seed=seed, streaming=d.streaming, shuffle_buffer=d.shuffle_buffer,
    )  # fmt: skip


def _prepared(data, columns, processor, d: ImageDataArguments, seed: int):
    augmentation = Augmentation(output_size(processor), d.smallest_crop, d.flip, d.rand_augment_operations, d.rand_augment_magnitude)
    return prepare_images(data, processor, columns, augmentation, d.broken_images, seed, d.shuffle_buffer)


def image_inputs(processor, data_args: ImageDataArguments, training_args: TrainingArguments):
    """What train, validation and test give a model whose image processor this is, as in `image_trainer`, without making a model."""
    seed = training_args.data_seed or 0
    return _prepared(*_load_data(data_args, seed), processor, data_args, seed)


def image_trainer(model_args: ImageModelArguments, data_args: ImageDataArguments, training_args: TrainingArguments):
    """A trainer ready to train, and what train, validation and test give the model.

    The conventional model is trained with the same loss and data, so that B-cos is the only difference.

    Raises:
        ValueError: settings that cannot be right, such as streaming without max_steps; and as `load_image_dataset`, `bcosify`.
    """
    a, d = model_args, data_args
    if d.streaming and training_args.do_train and training_args.max_steps <= 0:
        raise ValueError("streaming: expected max_steps > 0, as a stream has no known length; give rows of an epoch / rows of a step * epochs.")
    seed = training_args.data_seed or 0
    data, columns = _load_data(d, seed)
    set_seed(training_args.seed)
    standard, new = load_standard(a, data["train"].features[columns.label].names, d.image_size)
    fields = {} if a.conventional else config_fields(a)
    processor = image_processor(source_of(a), standard.config, fields.get("input_encoding", "normalized"), d.image_size)
    inputs = _prepared(data, columns, processor, d, seed)
    drawn, device = partial(image_batches, data["train"], processor, columns, seed=seed, broken=d.broken_images), training_args.device
    model = standard
    if not a.conventional:
        model = converted(standard, new, a, fields, drawn, d.dataset_name or d.train_file, processor, device)
        new = set(model.conversion_report.new)
    if a.from_scratch and not a.conventional:
        model = type(model)(model.config)  # the class's own random weights, not a standard model's, converted
    teacher = _teacher(a, standard, new, model, processor, d.image_size, device)
    if a.head_first_steps and training_args.do_train:
        rows, smoothing = drawn(a.head_first_samples), training_args.label_smoothing_factor
        train_head_(model.to(device), rows, a.off_labels, a.head_first_steps, training_args.seed, new, smoothing)
    trainer = BcosTrainer(
        model=model,
        args=training_args,
        train_dataset=inputs["train"],
        eval_dataset=inputs["validation"],
        processing_class=processor,
        settings=[a, d],
        compute_metrics=accuracy,
        callbacks=callbacks(a),
        off_labels=a.off_labels,
        batch_augmentation=partial(mixup, classes=model.config.num_labels, alpha=d.mixup) if d.mixup else None,
        teacher=teacher,
    )
    return trainer, inputs
