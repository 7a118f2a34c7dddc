"""Fine-tune a text classifier, B-cos or conventional, with everything else equal."""

import sys

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
    set_seed,
)

from bcos_hf.data import load_text_dataset, minilm_folder, tokenize
from bcos_hf.data.splits import label_fields
from bcos_hf.models import standard_of
from bcos_hf.models.bcos_bounds import saved_config
from bcos_hf.models.bcos_processors import saved_processor
from bcos_hf.models.bcos_text import positions_of

from .arguments import DataArguments, ModelArguments
from .callbacks import BScheduleCallback, ExplanationCallback
from .converting import converted, weight_norm_of
from .head_first import train_head_
from .losses import CLASSES
from .output_distillation import OutputTeacher, check_teacher
from .running import accuracy
from .trainer import BcosTrainer
from .training_rows import text_batches


# what the families call their probabilities
DROPOUT = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop")


def load_tokenizer(args: ModelArguments) -> tuple[PreTrainedTokenizerBase, AutoConfig]:
    """The tokenizer, with a padding token, and the configuration of the standard model."""
    source = source_of(args)
    tokenizer = saved_processor(AutoTokenizer, source)
    if tokenizer.pad_token_id is None:  # GPT-2's and Llama's have none
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, saved_config(source)


def _positions(config) -> int:
    """How many tokens a text of a model with this configuration may have; RoBERTa's are two fewer than its positions."""
    if not hasattr(config, "max_position_embeddings"):
        return sys.maxsize
    with torch.device("meta"):
        return positions_of(AutoModel.from_config(config))


def source_of(args: ModelArguments):
    """The Hub id or folder that `args` names."""
    return minilm_folder() if args.model_name_or_path == "minilm" else args.model_name_or_path


def load_model(args: ModelArguments, names: list[str], tokenizer, config, inputs, data_name: str | None, device) -> tuple[PreTrainedModel, set[str]]:
    """The model to train, with one label a name, and the names of its tensors that are random.

    Args:
        tokenizer, config: as of `load_tokenizer`. inputs, device: as of `converted`. data_name: of the data set, for the report.
    """
    labels = {**label_fields(names), "problem_type": CLASSES}
    common = {} if args.dropout is None else {name: args.dropout for name in DROPOUT if hasattr(config, name)}
    if config.pad_token_id is None:
        common["pad_token_id"] = tokenizer.pad_token_id
    if args.conventional:
        model, info = AutoModelForSequenceClassification.from_pretrained(source_of(args), output_loading_info=True, **labels, **common)
        return model, set(info["missing_keys"])
    weight_norm = weight_norm_of(args, "unit")
    fields = {**common, "b": args.b, "weight_norm": weight_norm, "keep_biases": args.keep_biases, "learnable_b": args.b_schedule == "learnable"}
    standard, missing = standard_of(source_of(args), AutoModelForSequenceClassification)
    model = converted(standard, missing, args, {**labels, **fields}, inputs, data_name, device=device)
    return model, set(model.conversion_report.new)


def _teacher(args: ModelArguments, student: PreTrainedModel, device) -> OutputTeacher | None:
    """What `args` distills from: the standard model of the student, if nothing else is named."""
    if not args.distillation_weight:
        return None
    standard, missing = standard_of(args.distillation_teacher or source_of(args), AutoModelForSequenceClassification)
    teacher = check_teacher(standard, student, missing)
    return OutputTeacher(teacher.to(device), args.distillation_weight, args.distillation_temperature)


def text_trainer(model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments):
    """A trainer ready to train, and the tokenized data set with train, validation and test.

    The conventional model is trained with the same loss, so that B-cos is the only difference.
    """
    a, d, seed = model_args, data_args, training_args.data_seed or 0
    data, columns = load_text_dataset(
        d.dataset_name, d.dataset_config_name, d.train_file, d.validation_file, d.test_file, d.dataset_revision, d.text_column, d.second_text_column,
        d.label_column, d.max_train_samples, d.max_eval_samples, seed=seed,
    )  # fmt: skip
    set_seed(training_args.seed)
    tokenizer, config = load_tokenizer(a)
    longest = min(d.max_length, _positions(config))
    tokens = tokenize(data, tokenizer, columns, longest)

    def inputs(count: int) -> list[dict]:
        return text_batches(tokens["train"], tokenizer, count, seed)

    names, device = data["train"].features[columns.label].names, training_args.device
    model, new = load_model(a, names, tokenizer, config, inputs, d.dataset_name or d.train_file, device)
    teacher = _teacher(a, model, device)
    if a.head_first_steps and training_args.do_train:
        rows, smoothing = inputs(a.head_first_samples), training_args.label_smoothing_factor
        train_head_(model.to(device), rows, a.off_labels, a.head_first_steps, training_args.seed, new, smoothing)
    callbacks = [] if a.conventional else [BScheduleCallback(a.b_schedule)]
    if a.explain_samples and not a.conventional:
        shown = data["validation"].select(range(min(a.explain_samples, len(data["validation"]))))
        texts = [list(shown[name]) for name in (columns.text, columns.second_text) if name]
        callbacks.append(ExplanationCallback(texts[0] if len(texts) == 1 else list(zip(*texts, strict=True)), tokenizer, longest))
    trainer = BcosTrainer(
        model=model,
        args=training_args,
        train_dataset=tokens["train"],
        eval_dataset=tokens["validation"],
        processing_class=tokenizer,
        settings=[a, d],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=accuracy,
        callbacks=callbacks,
        off_labels=a.off_labels,
        teacher=teacher,
    )
    return trainer, tokens
