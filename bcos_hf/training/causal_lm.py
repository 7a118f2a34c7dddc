"""Train a causal language model, B-cos or conventional, to predict the next token, with everything else equal.

Source: Wang et al., TMLR 2025 (arXiv 2502.12992) section 6, whose loss on OpenWebText is cross entropy.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments, default_data_collator, set_seed

from bcos_hf.data.running_text import in_blocks, load_running_text
from bcos_hf.models import standard_of
from bcos_hf.models.bcos_processors import saved_processor
from bcos_hf.models.bcos_text import positions_of

from .arguments import BcosArguments, optional
from .callbacks import BScheduleCallback
from .converting import converted, weight_norm_of
from .trainer import BcosTrainer
from .training_rows import block_batches


@dataclass
class CausalModelArguments(BcosArguments):
    """Which causal language model."""

    model_name_or_path: str = optional("openai-community/gpt2", "Hub id or folder of a GPT-2 or Llama.")
    b: float = optional(1.1, "Exponent B.")
    convert_lm_head: bool = optional(False, "The language model head becomes a B-cos layer too.")


@dataclass
class RunningTextArguments:
    """Which texts; local files are txt (a text in each line), csv, parquet or json."""

    dataset_name: str | None = optional(None, "Hub id, folder, or 'vader-movie-reviews'.")
    dataset_config_name: str | None = optional(None, "Configuration of the Hub data set.")
    dataset_revision: str | None = optional(None, "Revision of the Hub data set.")
    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    text_column: str | None = None
    block_size: int = optional(1024, "Tokens of a training example; at most as many as the model has positions.")
    max_train_samples: int | None = None
    max_eval_samples: int | None = None


def causal_lm_trainer(model_args: CausalModelArguments, data_args: RunningTextArguments, training_args: TrainingArguments):
    """A trainer ready to train, and blocks of text with train, validation and test. The loss is the model's own, cross entropy."""
    a, d = model_args, data_args
    data, column = load_running_text(
        d.dataset_name, d.dataset_config_name, d.train_file, d.validation_file, d.test_file, d.dataset_revision, d.text_column, d.max_train_samples,
        d.max_eval_samples, seed=training_args.data_seed or 0,
    )  # fmt: skip
    set_seed(training_args.seed)
    tokenizer = saved_processor(AutoTokenizer, a.model_name_or_path)
    weight_norm = weight_norm_of(a, "unit")
    missing: set[str] = set()
    if a.conventional:
        standard = AutoModelForCausalLM.from_pretrained(a.model_name_or_path)
    else:
        standard, missing = standard_of(a.model_name_or_path, AutoModelForCausalLM)
    blocks = in_blocks(data, tokenizer, column, min(d.block_size, positions_of(standard.base_model)))

    def inputs(count: int) -> Iterator[dict]:
        return block_batches(blocks["train"], count, training_args.data_seed or 0)

    model = standard
    if not a.conventional:
        fields = {"b": a.b, "weight_norm": weight_norm, "keep_biases": a.keep_biases, "convert_lm_head": a.convert_lm_head}
        fields["learnable_b"] = a.b_schedule == "learnable"
        model = converted(standard, missing, a, fields, inputs, d.dataset_name or d.train_file, device=training_args.device)
    trainer = BcosTrainer(
        model=model,
        args=training_args,
        train_dataset=blocks["train"],
        eval_dataset=blocks["validation"],
        processing_class=tokenizer,
        settings=[a, d],
        data_collator=default_data_collator,
        compute_metrics=_next_token_accuracy,
        preprocess_logits_for_metrics=lambda logits, labels: (logits[0] if isinstance(logits, tuple) else logits).argmax(-1),
        callbacks=[] if a.conventional else [BScheduleCallback(a.b_schedule)],
        off_labels=None,
    )
    return trainer, blocks


def _next_token_accuracy(prediction) -> dict[str, float]:
    counted = prediction.label_ids[:, 1:] != -100
    return {"accuracy": float((prediction.predictions[:, :-1] == prediction.label_ids[:, 1:])[counted].mean())}
