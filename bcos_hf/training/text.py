"""Fine-tune a text classifier, B-cos or conventional, with everything else equal."""

from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, TrainingArguments, set_seed

from bcos_hf.data import load_text_dataset, minilm_folder, tokenize
from bcos_hf.data.splits import label_fields
from bcos_hf.models import bcosify

from .arguments import DataArguments, ModelArguments
from .callbacks import BScheduleCallback, ExplanationCallback
from .trainer import BcosTrainer, accuracy


# what the families call their probabilities
DROPOUT = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop")


def load_model(args: ModelArguments, names: list[str]):
    """The model to train, with one label a name, and its tokenizer."""
    source = minilm_folder() if args.model_name_or_path == "minilm" else args.model_name_or_path
    labels = label_fields(names)
    tokenizer, config = AutoTokenizer.from_pretrained(source), AutoConfig.from_pretrained(source)
    common = {} if args.dropout is None else {name: args.dropout for name in DROPOUT if hasattr(config, name)}
    if tokenizer.pad_token_id is None:  # GPT-2's and Llama's have none
        tokenizer.pad_token = tokenizer.eos_token
    if config.pad_token_id is None:
        common["pad_token_id"] = tokenizer.pad_token_id
    if args.conventional:
        return AutoModelForSequenceClassification.from_pretrained(source, **labels, **common), tokenizer
    fields = {**common, "b": args.b, "weight_norm": args.weight_norm, "use_bias": args.use_bias, "learnable_b": args.b_schedule == "learnable"}
    return bcosify(source, auto_class=AutoModelForSequenceClassification, **labels, **fields), tokenizer


def text_trainer(model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments):
    """A trainer ready to train, and the tokenized data set with train, validation and test.

    The conventional model is trained with the same loss, so that B-cos is the only difference.
    """
    d = data_args
    data, columns = load_text_dataset(
        d.dataset_name, d.dataset_config_name, d.train_file, d.validation_file, d.test_file, d.dataset_revision, d.text_column, d.second_text_column,
        d.label_column, d.max_train_samples, d.max_eval_samples, seed=training_args.data_seed or 0,
    )  # fmt: skip
    set_seed(training_args.seed)
    model, tokenizer = load_model(model_args, data["train"].features[columns.label].names)
    positions = getattr(model.config, "max_position_embeddings", data_args.max_length)
    tokens = tokenize(data, tokenizer, columns, min(data_args.max_length, positions))
    callbacks = [] if model_args.conventional else [BScheduleCallback(model_args.b_schedule)]
    if model_args.explain_samples and not model_args.conventional:
        callbacks.append(ExplanationCallback(list(data["validation"][columns.text][: model_args.explain_samples]), tokenizer))
    trainer = BcosTrainer(
        model=model,
        args=training_args,
        train_dataset=tokens["train"],
        eval_dataset=tokens["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=accuracy,
        callbacks=callbacks,
        off_labels=model_args.off_labels,
    )
    return trainer, tokens
