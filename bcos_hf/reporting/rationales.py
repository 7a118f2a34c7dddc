"""Human rationales of a data set, passages quoted in a column (as ERASER's movie reviews have them), beside the tokens that an explanation names."""

import re
from collections.abc import Callable

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from bcos_hf.metrics import bootstrap_interval, marked_tokens, rationale_agreement


def quoted_spans(text: str, passages: list[str]) -> list[tuple[int, int]]:
    """Where the passages stand in the text, half-open, in characters; the first place of each, none of one that is not there.

    A line's end is as good as a space: a passage of more than one line of ERASER's reviews (a tenth of them) is quoted as one.
    """
    text, *passages = (re.sub(r"\s", " ", given) for given in (text, *passages))
    starts = [(text.find(passage), len(passage)) for passage in passages if passage]
    return [(start, start + length) for start, length in starts if start >= 0]


def human_rationales(explain: Callable, tokenizer, rows: dict, max_length: int | None, seed: int, batch_size: int = 16) -> dict[str, dict]:
    """{"token_f1", "iou_f1", "auprc"}, each with its interval and "n": the texts of which something marked is left after truncation.

    Args:
        explain: called with the right class as its target. rows: {"text", "label", "passages"}, lists.

    Raises:
        ValueError: no text has a marked token.
    """
    found = []
    for start in tqdm(range(0, len(rows["text"]), batch_size), desc="human rationales", leave=False):
        texts, labels, passages = (rows[name][start : start + batch_size] for name in ("text", "label", "passages"))
        inputs = tokenizer(
            texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt", return_offsets_mapping=True, return_special_tokens_mask=True
        )
        marked = marked_tokens([quoted_spans(*pair) for pair in zip(texts, passages, strict=True)], inputs.pop("offset_mapping"))
        counted = inputs["attention_mask"].bool() & ~inputs.pop("special_tokens_mask").bool()
        scores = explain(targets=torch.tensor(labels)[:, None], **inputs).contributions[:, 0].cpu()
        found += [row for row in zip(scores, marked & counted, counted, strict=True) if row[1].any()]
    if not found:
        raise ValueError(f"human_rationales: expected a marked token in some of {len(rows['text'])} texts, found none; look at the column and max_length.")
    agreement = rationale_agreement(*(pad_sequence(list(part), batch_first=True) for part in zip(*found, strict=True)))
    return {name: {**bootstrap_interval(values, seed=seed), "n": len(values)} for name, values in agreement.items()}
