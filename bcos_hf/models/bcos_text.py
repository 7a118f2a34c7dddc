"""Text as an input: which numbers are explained, and padding on either side."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from .bcos_words import display_tokens


def attention_mask_of(inputs: dict[str, Tensor]) -> Tensor:
    """The attention mask of `inputs` [N, L], ones if there is none.

    Raises:
        ValueError: no input_ids or inputs_embeds, an empty batch or text, a mask of another shape, an input that is all padding.
    """
    tokens = inputs.get("input_ids", inputs.get("inputs_embeds"))
    if tokens is None:
        raise ValueError(f"explain: expected input_ids or inputs_embeds, got {sorted(inputs)}.")
    if tokens.dim() < 2 or 0 in tokens.shape[:2]:
        raise ValueError(f"explain: expected a batch [N, L] with N >= 1 and L >= 1, got shape {list(tokens.shape)}.")
    mask = inputs.get("attention_mask")
    if mask is None:
        return torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device)
    if mask.shape != tokens.shape[:2]:
        raise ValueError(f"attention_mask: expected shape {list(tokens.shape[:2])}, that of the tokens, got {list(mask.shape)}.")
    if not mask.bool().any(1).all():
        raise ValueError("attention_mask: expected at least one token an input, got a row that is all padding.")
    return mask


def right_padded(inputs: dict[str, Tensor], mask: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
    """`inputs` with each row's tokens first and its padding last, and the order that did it (None: nothing to do).

    An encoder reads its class from position 0, so that a left-padded row would be classified by a padding token.
    """
    if bool((mask.bool().int().diff(dim=1) <= 0).all()):
        return inputs, None
    order = mask.bool().int().argsort(dim=1, descending=True, stable=True)

    def moved(value):
        if not isinstance(value, Tensor) or value.shape[:2] != mask.shape:
            return value
        return value.gather(1, order.view(*order.shape, *[1] * (value.dim() - 2)).expand_as(value))

    return {name: moved(value) for name, value in inputs.items()}, order


def as_given(x: Tensor, order: Tensor | None, dim: int) -> Tensor:
    """Undo `right_padded` along `dim` of x [N, ..., L, ...]."""
    if order is None:
        return x
    back = order.argsort(dim=1)
    index = back.view(len(back), *[1] * (dim - 1), back.shape[1], *[1] * (x.dim() - dim - 1))
    return x.gather(dim, index.expand_as(x))


def last_tokens(mask: Tensor) -> Tensor:
    """Where the last token of each text is, [N], of an attention mask [N, L] with padding on either side."""
    return mask.shape[1] - 1 - mask.bool().int().flip(1).argmax(1)


def input_of(base_model: nn.Module) -> tuple[nn.Module, bool]:
    """Where the explained input of a language model is: at the output of an encoder's embeddings (False), or before the first layer of a decoder (True)."""
    embeddings = getattr(base_model, "embeddings", None)
    if embeddings is not None:
        return embeddings, False
    return (base_model.h if hasattr(base_model, "h") else base_model.layers)[0], True


def position_table(base_model: nn.Module) -> nn.Embedding | None:
    """A language model's position embeddings; None where there are none, as in Llama."""
    return getattr(getattr(base_model, "embeddings", None), "position_embeddings", None) or getattr(base_model, "wpe", None)


def positions_of(base_model: nn.Module) -> int:
    """How many tokens a text may have (RoBERTa starts to count after its padding index), or was meant to have in a model without position embeddings."""
    table = position_table(base_model)
    if table is None:
        return base_model.config.max_position_embeddings
    return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)


def check_length(base_model: nn.Module, length: int) -> None:
    """Raise a ValueError for a text of more tokens than the model has position embeddings."""
    positions = positions_of(base_model)
    if position_table(base_model) is not None and length > positions:
        raise ValueError(
            f"expected at most {positions} tokens, as many as the model has positions, got {length}; tokenize with truncation=True, max_length={positions}."
        )


def token_number(tokenizer, count: int, argument: str, text: str) -> int:
    """The number of the token that is written `text`, in the vocabulary or by the tokenizer.

    Raises:
        ValueError: a text that is not one token of the first `count`.
    """
    found = tokenizer.get_vocab().get(text)
    ids = [found] if found is not None else tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1 or ids[0] >= count or (ids[0] == tokenizer.unk_token_id and text != tokenizer.unk_token):
        pieces = tokenizer.convert_ids_to_tokens(ids)
        raise ValueError(f"{argument}: expected a text that is one token of the vocabulary, got {text!r}: {pieces}.")
    return ids[0]


def with_tokens(explanation, tokenizer, input_ids: Tensor, attention_mask: Tensor | None = None):
    """`explanation` with the display texts and words of its inputs [N, L], for showing and for merging pieces into words.

    Where the classes are the tokens of the vocabulary, they are called as it writes them.
    """
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    shown = vars(display_tokens(tokenizer, input_ids, mask))
    labels, classes = explanation.labels, explanation.logits.shape[1]
    if labels is None and classes >= tokenizer.vocab_size:  # a head may be larger than the vocabulary
        labels = [token or f"token {number}" for number, token in enumerate(tokenizer.convert_ids_to_tokens(list(range(classes))))]
    return replace(explanation, **shown, labels=labels)
