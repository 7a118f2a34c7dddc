"""B-cosify the image tower of a CLIP by distillation: the student learns the frozen teacher's embeddings from pictures alone, the text tower stays.

Source: Arya et al., NeurIPS 2024 (arXiv 2411.00715): images alone, SigLIP loss with scale 10 and bias -10, learning rate 1e-4, cosine.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor, AutoTokenizer, BaseImageProcessor, PreTrainedModel, TrainingArguments, set_seed

from bcos_hf.checkpoints import from_openai_clip
from bcos_hf.data.augmentation import Augmentation
from bcos_hf.data.image_inputs import image_processor, output_size, prepare_images
from bcos_hf.data.images import load_image_dataset
from bcos_hf.data.pictures import load_pictures
from bcos_hf.data.prompts import prompts_of
from bcos_hf.metrics.zero_shot import class_embeddings
from bcos_hf.models.bcos_bounds import saved_config
from bcos_hf.models.bcos_processors import files_of, saved_processor

from .arguments import CLIPArguments, PictureArguments
from .converting import converted, weight_norm_of
from .distillation import DistillationTrainer, OtherImages
from .image import callbacks
from .output_distillation import between_processors
from .running import accuracy
from .teacher_cache import TaughtPictures, teacher_embeddings
from .training_rows import image_batches


FIELDS = ("b", "keep_biases", "max_pool", "input_encoding")
OPENAI_FILES = (".pt", ".pth")
OPENAI_TEXTS = "openai/clip-vit-base-patch32"  # all of OpenAI's models have its tokenizer


def load_teacher(name: str) -> PreTrainedModel:
    """The pretrained model `name`: a Hub id, a folder, or a file of OpenAI's CLIP ResNets; float32, in evaluation mode."""
    if name.endswith(OPENAI_FILES):
        return from_openai_clip(name)
    return AutoModel.from_pretrained(name, dtype=torch.float32).eval()


def text_side(teacher: str) -> str:
    """Where the tokenizer of the teacher is."""
    return OPENAI_TEXTS if teacher.endswith(OPENAI_FILES) else teacher


def student_of(
    teacher: PreTrainedModel,
    args: CLIPArguments,
    inputs: Callable | None = None,
    source: str | None = None,
    processor: BaseImageProcessor | None = None,
    device: str | torch.device = "cpu",
) -> PreTrainedModel:
    """The B-cos twin, or with `conventional` a copy, of which the image tower alone is trainable.

    Args:
        inputs, source, processor, device: for calibration_samples, as of `converted`.
    """
    if args.conventional:
        student = deepcopy(teacher)
    else:
        fields = {name: getattr(args, name) for name in FIELDS if getattr(args, name) is not None}
        fields |= {"weight_norm": weight_norm_of(args, "none"), "learnable_b": args.b_schedule == "learnable"}
        student = converted(teacher, set(), args, fields, inputs, source, processor, device)
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(not hasattr(student, "image_parts") or name.startswith(student.image_parts))
    return student


def _training_images(d: PictureArguments, seed: int):
    """Rows of images, and the names of their columns."""
    return load_pictures(
        d.dataset_name, d.shards, d.dataset_config_name, d.dataset_revision, "train", d.image_column, d.max_train_samples, seed, d.streaming, d.shuffle_buffer
    )


def clip_inputs(processor, d: PictureArguments, training_args: TrainingArguments) -> tuple[dict, list[str] | None]:
    """What train, validation and test give the model, and the class names; all but train only where labelled pictures are named."""
    seed = training_args.data_seed or 0
    varied = d.smallest_crop < 1 or d.flip or d.rand_augment_operations
    augmentation = Augmentation(output_size(processor), d.smallest_crop, d.flip, d.rand_augment_operations, d.rand_augment_magnitude) if varied else None
    rows, columns = _training_images(d, seed)
    inputs, names = prepare_images({"train": rows}, processor, columns, augmentation, d.broken_images, seed, d.shuffle_buffer), None
    if d.eval_dataset_name is not None:
        labelled, columns = load_image_dataset(d.eval_dataset_name, label_column=d.label_column, max_eval_samples=d.max_eval_samples, seed=seed)
        names = labelled.pop("train").features[columns.label].names
        inputs |= prepare_images(labelled, processor, columns, None, d.broken_images, seed)
    return inputs, names


def _taught(pictures, teacher: PreTrainedModel, folder: str, d: PictureArguments, training_args: TrainingArguments) -> TaughtPictures:
    if d.streaming or d.smallest_crop < 1 or d.flip or d.rand_augment_operations:
        raise ValueError("teacher_cache: expected pictures that stay the same, smallest_crop 1, flip 0, no RandAugment and streaming false.")
    with training_args.main_process_first():
        return TaughtPictures(pictures, teacher_embeddings(teacher, pictures, folder))


def clip_trainer(model_args: CLIPArguments, data_args: PictureArguments, training_args: TrainingArguments):
    """A trainer ready to train, and what train, validation and test give the model (the latter two if labelled pictures are named).

    Raises:
        ValueError: settings that cannot be right; and as `load_pictures`, `bcosify`.
    """
    if data_args.streaming and training_args.do_train and training_args.max_steps <= 0:
        raise ValueError("streaming: expected max_steps > 0, as a stream has no known length; give rows of an epoch / rows of a step * epochs.")
    set_seed(training_args.seed)
    teacher = load_teacher(model_args.teacher)
    encoding = "normalized" if model_args.conventional else model_args.input_encoding or "normalized"
    vision = getattr(teacher.config, "vision_config", teacher.config)
    own, processor = (image_processor(model_args.teacher, vision, kind, data_args.image_size) for kind in ("normalized", encoding))

    def drawn(count: int):
        rows, columns = _training_images(data_args, training_args.data_seed or 0)
        return image_batches(rows, processor, columns, count, training_args.data_seed or 0, data_args.broken_images)

    student = student_of(teacher, model_args, drawn, data_args.dataset_name or data_args.shards, processor, training_args.device)
    inputs, names = clip_inputs(processor, data_args, training_args)
    images = between_processors(processor, own)
    taught_by = teacher if images is None else OtherImages(teacher, images)
    if model_args.teacher_cache is not None:
        inputs["train"] = _taught(inputs["train"], taught_by.to(training_args.device), model_args.teacher_cache, data_args, training_args)
    classes = None
    if names is not None:
        classes = class_embeddings(teacher, saved_processor(AutoTokenizer, text_side(model_args.teacher)), prompts_of(names, model_args.templates))
    options = {"scale": model_args.loss_scale, "bias": model_args.loss_bias} if model_args.loss == "siglip" else {}
    trainer = DistillationTrainer(
        model=student,
        args=training_args,
        train_dataset=inputs["train"],
        eval_dataset=inputs.get("validation"),
        processing_class=processor,
        settings=[model_args, data_args],
        compute_metrics=None if classes is None else accuracy,
        callbacks=callbacks(model_args),
        teacher=taught_by,
        loss=model_args.loss,
        loss_options=options,
        class_embeds=classes,
        prompt_weight=model_args.prompt_weight,
        learn_scale=model_args.learn_scale,
    )
    return trainer, inputs


def save_text_side(teacher: str, image_processor, folder: str | Path) -> None:
    """The teacher's tokenizer, or its processor with the student's image processor, in `folder`, so that it makes a zero-shot pipeline.

    An image tower, or a folder without a file of a tokenizer, has none to give.

    Raises:
        OSError, ValueError: there is one, and it cannot be loaded.
    """
    source = text_side(teacher)
    if not hasattr(saved_config(source), "text_config"):
        return
    if Path(source).is_dir() and not any(files_of(AutoTokenizer, source)):
        return
    processor = saved_processor(AutoProcessor, source)
    if hasattr(processor, "image_processor"):
        processor.image_processor = image_processor
        processor.save_pretrained(folder)
        return
    saved_processor(AutoTokenizer, source).save_pretrained(folder)
