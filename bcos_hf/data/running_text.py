"""Texts without labels, as causal language models are trained on them: one after the other, cut into blocks of one length."""

from itertools import chain
from pathlib import Path

from datasets import DatasetDict, load_dataset
from transformers import PreTrainedTokenizerBase

from .splits import find_column, find_splits, is_text, sample, with_all_splits
from .text import EMBEDDED, TEXT_NAMES, read_rows
from .vader import movie_reviews


def load_running_text(
    name_or_path: str | None,
    config_name: str | None = None,
    train_file: str | Path | None = None,
    validation_file: str | Path | None = None,
    test_file: str | Path | None = None,
    revision: str | None = None,
    text_column: str | None = None,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    validation_fraction: float = 0.01,
    seed: int = 0,
) -> tuple[DatasetDict, str]:
    """Texts with the splits train, validation and test, and the name of their column; sources, missing splits and errors as of `load_text_dataset`.

    A txt file has a text in each line.
    """
    dataset = find_splits(
        "load_running_text",
        name_or_path,
        (train_file, validation_file, test_file),
        read_rows,
        lambda name: movie_reviews(seed) if name == EMBEDDED else load_dataset(name, config_name, revision=revision),
    )
    found = dataset["train"].column_names
    column = find_column(text_column, TEXT_NAMES, [name for name in found if is_text(dataset["train"], name)], found, "text_column")
    dataset = with_all_splits(DatasetDict(dataset), validation_fraction, seed)
    limits = {"train": max_train_samples, "validation": max_eval_samples, "test": max_eval_samples}
    return DatasetDict({split: sample(rows, limits[split], seed) for split, rows in dataset.items()}), column


def in_blocks(dataset: DatasetDict, tokenizer: PreTrainedTokenizerBase, column: str, block_size: int) -> DatasetDict:
    """Rows `input_ids`, `attention_mask` and `labels` of `block_size` tokens each; what is left over of a thousand texts is not used.

    Each text ends with the tokenizer's end token, where it has one. Raises ValueError for a split without a single block.
    """
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]

    def blocks(batch: dict[str, list]) -> dict[str, list]:
        texts = tokenizer([text for text in batch[column] if text], verbose=False)["input_ids"] if any(batch[column]) else []
        ids = list(chain.from_iterable(row if end and row[-1:] == end else row + end for row in texts))
        made = [ids[start : start + block_size] for start in range(0, len(ids) - block_size + 1, block_size)]
        return {"input_ids": made, "attention_mask": [[1] * block_size for _ in made], "labels": made}

    made = {split: rows.map(blocks, batched=True, remove_columns=rows.column_names, desc=f"Cutting {split}") for split, rows in dataset.items()}
    if empty := [split for split, rows in made.items() if not len(rows)]:
        raise ValueError(f"{', '.join(empty)}: expected at least {block_size} tokens, found fewer; take a smaller block_size, or more texts.")
    return DatasetDict(made)
