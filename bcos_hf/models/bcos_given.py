"""Inputs as people give them: tensors, arrays and lists become tensors; what is no input is refused in words that name the mistake."""

from collections.abc import Mapping

import torch
from torch import Tensor


TOKENIZE = 'model.explain(**tokenizer(texts, padding=True, return_tensors="pt"), tokenizer=tokenizer)'
OF_TOKENS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")  # [N, L], of a single text [L]
NOT_GIVEN = ("labels", "return_dict", "output_attentions", "output_hidden_states", "use_cache")


def token_inputs(inputs: dict, targets, device: torch.device, vocabulary: int) -> dict[str, Tensor]:
    """What a language model takes, as tensors on `device`; labels are left out.

    Args:
        inputs: tensors, arrays or lists of numbers, [N, L]; [L] is a single text.
        targets: as `explain` got them, in whose place a text may have been given by mistake.
        vocabulary: number of tokens that there are.

    Raises:
        ValueError: texts in the place of tokens, rows of unequal length, numbers that are no tokens.
    """
    if "input_ids" not in inputs and "inputs_embeds" not in inputs:
        given = (
            "a text"
            if isinstance(targets, str)
            else "all inputs as one argument"
            if isinstance(targets, Mapping)
            else None
        )
        got = sorted(inputs) if given is None else given
        raise ValueError(f"explain: expected input_ids or inputs_embeds, got {got}. Tokenize texts: {TOKENIZE}.")
    made = {name: _tensor(name, value) for name, value in inputs.items() if name not in NOT_GIVEN and value is not None}
    made = {name: value.to(device) for name, value in made.items() if isinstance(value, Tensor)}
    if made.get("input_ids", made.get("inputs_embeds")).dim() == (1 if "input_ids" in made else 2):  # a single text
        made = {name: value[None] if name in (*OF_TOKENS, "inputs_embeds") else value for name, value in made.items()}
    ids = made.get("input_ids")
    if ids is not None and ids.numel():
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise ValueError(f"input_ids: expected whole numbers, got {ids.dtype}. Tokenize texts: {TOKENIZE}.")
        low, high = (value.item() for value in ids.aminmax())
        if low < 0 or high >= vocabulary:
            raise ValueError(
                f"input_ids: expected tokens 0 to {vocabulary - 1}, got {low} to {high}. Use the tokenizer that the model was made with."
            )
    return made


def _tensor(name: str, value):
    """Arrays and lists as a tensor; what is neither stays."""
    if isinstance(value, str) or (isinstance(value, list | tuple) and any(isinstance(one, str) for one in value)):
        raise ValueError(f"{name}: expected numbers, got texts. Tokenize them: {TOKENIZE}.")
    if not isinstance(value, list | tuple) and not hasattr(value, "__array__"):
        return value
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: expected rows of one length, got others ({error}). Pad them: {TOKENIZE}.") from error


def image_inputs(value):
    """Images [N, C, H, W] given as an array, or as a list of N images [C, H, W] of one size, as a tensor; all else stays, to be refused."""
    try:
        if isinstance(value, list | tuple) and value:
            return torch.stack([torch.as_tensor(one) for one in value])
        return torch.as_tensor(value) if hasattr(value, "__array__") else value
    except (TypeError, ValueError, RuntimeError):
        return value


def picked(value, index):
    """Some of a batch's tensors or lists: by a slice, or a list of numbers."""
    return [value[one] for one in index] if isinstance(value, list) and isinstance(index, list) else value[index]


def batch_index(index, count: int) -> slice | list[int]:
    """Which of `count` inputs are meant, none of them lost as a dimension.

    Args:
        index: a whole number of any library, a slice, a list or tensor of numbers, or one of `count` bools.

    Raises:
        IndexError: a number that there is not.
        TypeError: what is no index.
    """
    if isinstance(index, slice):
        return index
    try:
        numbers = torch.as_tensor(index if not isinstance(index, tuple) else None)  # of several dimensions
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"explanation: expected a number, a slice or a list of numbers, got {index!r}.") from error
    if numbers.dtype == torch.bool and numbers.shape == (count,):
        numbers = numbers.nonzero().flatten()
    if numbers.dim() > 1 or numbers.dtype == torch.bool or (numbers.numel() and numbers.is_floating_point()):
        raise TypeError(f"explanation: expected a number, a slice or a list of numbers, got {index!r}.")
    numbers = numbers.flatten().tolist()
    if wrong := [number for number in numbers if not -count <= number < count]:
        raise IndexError(f"explanation: expected one of {count}, got {wrong[0]}.")
    return [int(number) % count for number in numbers]
