"""The contrastive evidence rank of a language model: why this word rather than that one, and how high are the tokens ranked that people know decide it?

The word's place is the text's mask token (masked language models) or what comes next (decoders). Sources are in evidence_rank.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm

from .bootstrap import bootstrap_interval
from .evidence_rank import expected_reciprocal_ranks, reciprocal_ranks
from .rationale_agreement import marked_tokens


@dataclass(frozen=True)
class ContrastivePair:
    """A text without a word: the word, its foil, and the spans (start, end) of characters, half-open, that decide between them.

    ContrastivePair("The keys to the cabinet", "are", "is", [(4, 8)]) for a decoder; for a masked language model the text goes on after its mask token.
    """

    text: str
    word: str
    foil: str
    evidence: tuple[tuple[int, int], ...] | list[tuple[int, int]]


def token_of(tokenizer, text: str, word: str) -> int:
    """The first token of `word` in its place: that of the mask token, or after the text."""
    before, masked, after = text.partition(tokenizer.mask_token) if tokenizer.mask_token else (text, "", "")
    start = before if masked or before.endswith(" ") else f"{before} "
    tokens = tokenizer(f"{start}{word}{after}")
    return tokens["input_ids"][tokens.char_to_token(len(start))]


def _tokens_of(tokenizer, pair: ContrastivePair) -> tuple[int, int]:
    word, foil = (token_of(tokenizer, pair.text, given) for given in (pair.word, pair.foil))
    if word == foil:
        raise ValueError(f"{pair.text!r}: expected a word and a foil whose first tokens differ, {pair.word!r} and {pair.foil!r} share theirs; leave it out.")
    return word, foil


def play_evidence_rank(pairs: list[ContrastivePair], explainers: dict[str, Callable], tokenizer, batch_size: int = 16, seed: int = 0) -> dict[str, dict]:
    """Mean reciprocal rank of the evidence for each explainer, on the same pairs, with its 95 % interval over pairs; and what a random order gives.

    Args:
        explainers: name -> a callable like `model.explain`, of a language model, called with targets and contrast [N, 1], and for mask tokens `position`.
        tokenizer: a fast one, with a token for padding.

    Returns:
        name -> {"mean", "low", "high", "n", "seed"}; "random" is among the names.

    Raises:
        ValueError: a word and a foil with the same first token, a text without an evidence token, or some texts with a mask token and some without.
    """
    mask, ranks = tokenizer.mask_token, {name: [] for name in (*explainers, "random")}
    masked = [mask is not None and mask in pair.text for pair in pairs]
    if any(masked) != all(masked):
        raise ValueError(f"play_evidence_rank: expected one {mask} in all texts or in none, found it in {sum(masked)} of {len(pairs)}.")
    for start in tqdm(range(0, len(pairs), batch_size), desc="evidence rank", leave=False):
        part = pairs[start : start + batch_size]
        inputs = tokenizer([pair.text for pair in part], padding=True, return_tensors="pt", return_offsets_mapping=True, return_special_tokens_mask=True)
        evidence = marked_tokens([list(pair.evidence) for pair in part], inputs.pop("offset_mapping"))
        counted = inputs["attention_mask"].bool() & ~inputs.pop("special_tokens_mask").bool()
        word, foil = torch.tensor([_tokens_of(tokenizer, pair) for pair in part]).split(1, dim=1)
        place = {}
        if any(masked):
            gap = inputs["input_ids"] == tokenizer.mask_token_id
            counted, place = counted & ~gap, {"position": gap.int().argmax(1)}
        for name, explain in explainers.items():
            scores = explain(targets=word, contrast=foil, **place, **inputs).contributions[:, 0].cpu()
            ranks[name].append(reciprocal_ranks(scores, evidence, counted))
        ranks["random"].append(expected_reciprocal_ranks(counted, evidence))
    return {name: {**bootstrap_interval(torch.cat(values), seed=seed), "n": len(pairs), "seed": seed} for name, values in ranks.items()}
