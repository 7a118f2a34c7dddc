"""A published file's tensors, and the model that takes all of them: nothing in a file is run, nothing is left out unseen."""

import os
import pickle
from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import PreTrainedModel


def state_of(source: str | os.PathLike | dict[str, Tensor], wanted: str) -> dict[str, Tensor]:
    """The tensors of a state dict, of a file that holds one (bare, or under 'state_dict'), or of a TorchScript archive; `wanted` is for errors.

    Raises:
        ValueError: a file that is damaged or holds other Python objects than tensors, none of which is run.
    """
    if isinstance(source, dict):
        return source
    try:
        return torch.jit.load(os.fspath(source), map_location="cpu").state_dict()
    except RuntimeError:  # no archive
        pass
    try:
        made = torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(
            f"Expected {wanted}: a TorchScript archive or a file of tensors alone; got {os.fspath(source)!r}, which is damaged or holds other Python "
            "objects. Nothing in it was run; fetch it again from where it was published."
        ) from error
    state = made.get("state_dict", made) if isinstance(made, dict) else made
    return {name: value for name, value in state.items() if isinstance(value, Tensor)} if isinstance(state, dict) else {}


def model_of(cls: type[PreTrainedModel], config, state: dict[str, Tensor], wanted: str, unexpected: Iterable[str] = ()) -> PreTrainedModel:
    """The model of a config with every tensor of `state`, in evaluation mode, float32; `unexpected` are names found before that fit nowhere.

    Raises:
        ValueError: tensors are missing, unexpected, or of another shape; the message names them.
    """
    with torch.device("meta"):
        shapes = {name: list(value.shape) for name, value in cls(config).state_dict().items()}
    missing = sorted(name for name in shapes if name not in state and not name.endswith("num_batches_tracked"))
    unexpected = sorted({*unexpected, *(state.keys() - shapes.keys())})
    wrong = {name: (list(value.shape), shapes[name]) for name, value in sorted(state.items()) if name in shapes and list(value.shape) != shapes[name]}
    if missing or unexpected or wrong:
        differing = "".join(f"; {name}: got shape {got}, expected {shape}" for name, (got, shape) in wrong.items())
        raise ValueError(f"Expected the tensors of {wanted}; missing: {missing or 'none'}; unexpected: {unexpected or 'none'}{differing}.")
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    return cls.from_pretrained(None, config=config, state_dict=state, dtype=torch.float32).eval()
