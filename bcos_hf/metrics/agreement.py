"""What a conversion keeps: a B-cos model and the standard model it was made from, on the same inputs.

Classifiers: how often both choose the same class, and how often each is right. Language models: the perplexity of both,
and how often the first choices for a token agree. Encoders: the cosine of both embeddings, of images the pooled one, of
texts the mean over tokens.
"""

from collections.abc import Callable, Iterable, Iterator
from math import exp

import torch
from torch import Tensor
from torch.nn import functional as F

from bcos_hf.models.bcos_saving import auto_class_of

from .bootstrap import bootstrap_interval
from .finite import check_finite


MASKED = 0.15  # of the tokens, for a masked language model
OF_TOKENS = ("AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForTokenClassification")
ROWS_OF_TOKENS = 4


def conversion_kept(
    standard,
    twin,
    batches: Iterable[tuple[dict[str, Tensor], Tensor | None]],
    standard_pixels: Callable[[Tensor], Tensor] | None = None,
    mask_token_id: int | None = None,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Metrics of both models, name -> {"mean", "low", "high", "n"} with 95 % intervals; of tokens {"mean", "n"}.

    Args:
        standard, twin: in evaluation mode, on one device.
        batches: what the twin takes, and the numbers of the classes [N], -1 where there is none; None: none at all.
        standard_pixels: the twin's pixel_values -> the standard model's; None: they take the same.
        mask_token_id: of a masked language model's tokenizer.
        seed: of the masked tokens and the intervals.

    Raises:
        ValueError: no batch, outputs that are not finite, or a masked language model without a mask token.
    """
    kind, generator = auto_class_of(type(twin)), torch.Generator().manual_seed(seed)
    measure = _TABLE.get(kind, _embeddings)
    if kind == "AutoModelForMaskedLM" and mask_token_id is None:
        raise ValueError("mask_token_id: expected that of the tokenizer, by which tokens are masked; got None.")
    values: dict[str, list[Tensor]] = {}
    for inputs, labels in _in_parts(batches, ROWS_OF_TOKENS if kind in OF_TOKENS else None):
        inputs = {name: value.to(twin.device) for name, value in inputs.items()}
        hidden = None
        if kind == "AutoModelForMaskedLM":
            inputs, hidden = masked_tokens(inputs, mask_token_id, generator)
        theirs = dict(inputs)
        if standard_pixels is not None and "pixel_values" in theirs:
            theirs["pixel_values"] = standard_pixels(theirs["pixel_values"])
        with torch.no_grad():
            outputs = standard(**theirs), twin(**inputs)
        _check(outputs, inputs)
        given = {"labels": labels, "inputs": inputs, "hidden": hidden}
        for name, value in measure(*outputs, **given).items():
            values.setdefault(name, []).append(value.cpu().double())
    if not values:
        raise ValueError("expected at least one batch to compare the models on, got none.")
    found = {name: torch.cat(parts) for name, parts in values.items()}
    return {name: _summary(name, value, kind in OF_TOKENS, seed) for name, value in found.items() if len(value)}


def _check(outputs: tuple, inputs: dict[str, Tensor]) -> None:
    for name, output in zip(("standard model", "twin"), outputs, strict=True):
        check_finite(**{f"{name}'s outputs": output.logits if hasattr(output, "logits") else _embedding(output, inputs)})


def _in_parts(batches: Iterable, rows: int | None) -> Iterator[tuple[dict[str, Tensor], Tensor | None]]:
    """The batches, at most `rows` rows at a time, as the logits of all words take much memory."""
    for inputs, labels in batches:
        count = len(next(iter(inputs.values())))
        for start in range(0, count, rows or count):
            part = slice(start, start + (rows or count))
            yield {name: value[part] for name, value in inputs.items()}, None if labels is None else labels[part]


def _summary(name: str, values: Tensor, by_tokens: bool, seed: int) -> dict[str, float]:
    if by_tokens:  # which depend on each other, so that there is no interval
        mean = values.mean().item()
        return {"mean": exp(min(mean, 700.0)) if name.endswith("perplexity") else mean, "n": len(values)}
    return {**bootstrap_interval(values, seed=seed), "n": len(values)}


def _classes(standard, twin, labels: Tensor | None, **_) -> dict[str, Tensor]:
    if twin.logits.shape[-1] == 1:  # a number, not a class
        return {"absolute_difference": (standard.logits - twin.logits).abs()[:, 0]}
    theirs, ours = standard.logits.argmax(-1), twin.logits.argmax(-1)
    made = {"agreement": (theirs == ours)}
    if labels is not None:
        kept = labels.to(ours.device) >= 0
        right = [(predicted == labels.to(ours.device))[kept] for predicted in (theirs, ours)]
        made = {"standard_accuracy": right[0], "accuracy": right[1], **made}
    return made


def _token_classes(standard, twin, inputs: dict[str, Tensor], **_) -> dict[str, Tensor]:
    agree = standard.logits.argmax(-1) == twin.logits.argmax(-1)
    return {"agreement": agree[_tokens(inputs)]}


def _next_tokens(standard, twin, inputs: dict[str, Tensor], **_) -> dict[str, Tensor]:
    kept = _tokens(inputs)[:, 1:]
    return _words(standard.logits[:, :-1][kept], twin.logits[:, :-1][kept], inputs["input_ids"][:, 1:][kept])


def _hidden_tokens(standard, twin, hidden: Tensor, **_) -> dict[str, Tensor]:
    kept = hidden >= 0
    return _words(standard.logits[kept], twin.logits[kept], hidden[kept])


def _words(theirs: Tensor, ours: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    surprise = [F.cross_entropy(logits.float(), wanted, reduction="none") for logits in (theirs, ours)]
    return {
        "standard_perplexity": surprise[0],
        "perplexity": surprise[1],
        "agreement": theirs.argmax(-1) == ours.argmax(-1),
    }


def _embeddings(standard, twin, inputs: dict[str, Tensor], **_) -> dict[str, Tensor]:
    return {"cosine": F.cosine_similarity(_embedding(standard, inputs), _embedding(twin, inputs), dim=-1)}


def _embedding(output, inputs: dict[str, Tensor]) -> Tensor:
    """[N, D]."""
    if getattr(output, "image_embeds", None) is not None:
        return output.image_embeds
    if "pixel_values" in inputs and getattr(output, "pooler_output", None) is not None:
        return output.pooler_output.flatten(1)
    hidden = output.last_hidden_state
    if hidden.dim() == 4:  # maps
        return hidden.mean((2, 3))
    kept = _tokens(inputs)[..., None] if "input_ids" in inputs else torch.ones_like(hidden[..., :1])
    return (hidden * kept).sum(1) / kept.sum(1)


def _tokens(inputs: dict[str, Tensor]) -> Tensor:
    """[N, L], which are no padding."""
    return (
        inputs["attention_mask"].bool()
        if "attention_mask" in inputs
        else torch.ones_like(inputs["input_ids"], dtype=torch.bool)
    )


def masked_tokens(
    inputs: dict[str, Tensor], mask_token_id: int, generator: torch.Generator
) -> tuple[dict[str, Tensor], Tensor]:
    """The inputs with some tokens masked, and the masked tokens' ids [N, L], -1 elsewhere.

    First and last tokens, which are special, stay.
    """
    ids, kept = inputs["input_ids"], _tokens(inputs)
    inner = kept & kept.roll(-1, 1)
    inner[:, 0], inner[:, -1] = False, False
    chosen = inner & (torch.rand(ids.shape, generator=generator) < MASKED).to(ids.device)
    return {**inputs, "input_ids": ids.masked_fill(chosen, mask_token_id)}, ids.masked_fill(~chosen, -1)


_TABLE = {
    "AutoModelForSequenceClassification": _classes,
    "AutoModelForImageClassification": _classes,
    "AutoModelForTokenClassification": _token_classes,
    "AutoModelForCausalLM": _next_tokens,
    "AutoModelForMaskedLM": _hidden_tokens,
}
