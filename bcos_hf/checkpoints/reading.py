"""A published file's tensors, and the model that takes all of them: nothing in a file is run, nothing is left out unseen."""

import hashlib
import os
import pickle
import re
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging


HASH = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # of a published file's name: the start of its SHA-256


def downloaded(url: str) -> Path:
    """The file of an https address, fetched once into the cache of torch.hub; where its name ends with a hash, as torch.hub's files do, it must have that.

    Raises:
        ValueError: another scheme, or another content than the hash says. OSError: no connection, no such file.
    """
    if not url.startswith(("https://", "file://")):
        raise ValueError(f"{url}: expected an address that begins with https://. Fetch the file by hand and give its path.")
    name, known = url.rpartition("/")[2], HASH.search(url)
    folder = Path(torch.hub.get_dir(), "checkpoints")  # where names without a hash may mean anything, so the address tells them apart
    file = folder / name if known else folder / hashlib.sha256(url.encode()).hexdigest()[:16] / name
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), hash_prefix=known and known[1], progress=logging.is_progress_bar_enabled())
        except (OSError, HTTPException) as error:
            raise OSError(f"{url}: could not be fetched ({error}). Fetch it by hand and give its path.") from error
        except RuntimeError as error:
            raise ValueError(f"{url}: expected the content that its name says, got another ({error}). Nothing was kept; try again.") from error
    return file


def file_of(source: str | os.PathLike) -> str:
    """The path of a file that is given by its path or by an https address, as `downloaded` fetches it."""
    source = os.fspath(source)
    return str(downloaded(source)) if "://" in source else source


def state_of(source: str | os.PathLike | dict[str, Tensor], wanted: str) -> dict[str, Tensor]:
    """The tensors of a state dict, of a file that holds one (safetensors, or torch's, bare or under 'state_dict'), or of a TorchScript archive.

    `wanted` is for errors. A file may be given by its path or by an https address (see `downloaded`).

    Raises:
        ValueError: a file that is damaged or holds other Python objects than tensors, none of which is run.
    """
    if isinstance(source, dict):
        return source
    file, fetched = file_of(source), "://" in os.fspath(source)
    try:
        return torch.jit.load(file, map_location="cpu").state_dict()
    except RuntimeError:  # no archive
        pass
    try:
        made = load_file(file) if file.endswith(".safetensors") else torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        if fetched:
            os.unlink(file)  # so that it is fetched again
        raise ValueError(
            f"Expected {wanted}: a TorchScript archive or a file of tensors alone; got {os.fspath(source)!r}, which is damaged or holds other Python "
            "objects. Nothing in it was run; fetch it again from where it was published."
        ) from error
    state = made.get("state_dict", made) if isinstance(made, dict) else made
    return {name: value for name, value in state.items() if isinstance(value, Tensor)} if isinstance(state, dict) else {}


def model_of(cls: type[PreTrainedModel], config, state: dict[str, Tensor], wanted: str, unexpected: Iterable[str] = ()) -> PreTrainedModel:
    """The model of a config with every tensor of `state`, in evaluation mode, float32; `unexpected` are names found before that fit nowhere.

    The weight of a 1x1 convolution may stand for that of a linear layer: [M, C, 1, 1] is taken for [M, C], as are all ones at the end of a shape.

    Raises:
        ValueError: tensors are missing, unexpected, or of another shape; the message names them.
    """
    with torch.device("meta"):
        structure = cls(config)
    shapes = {name: value.shape for name, value in structure.state_dict().items()}
    state = {name: _fitted(value, shapes.get(name)) for name, value in state.items()}
    tied = set(getattr(structure, "all_tied_weights_keys", None) or {})
    missing = sorted(name for name in shapes if name not in state and name not in tied and not name.endswith("num_batches_tracked"))
    unexpected = sorted({*unexpected, *(state.keys() - shapes.keys())})
    wrong = {name: (list(value.shape), list(shapes[name])) for name, value in sorted(state.items()) if name in shapes and value.shape != shapes[name]}
    if missing or unexpected or wrong:
        differing = "".join(f"; {name}: got shape {got}, expected {shape}" for name, (got, shape) in wrong.items())
        raise ValueError(f"Expected the tensors of {wanted}; missing: {missing or 'none'}; unexpected: {unexpected or 'none'}{differing}.")
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    return cls.from_pretrained(None, config=config, state_dict=state, dtype=torch.float32).eval()


def _fitted(value: Tensor, shape: torch.Size | None) -> Tensor:
    ones = 0 if shape is None else value.dim() - len(shape)
    return value.flatten(len(shape) - 1) if ones > 0 and len(shape) and value.shape == (*shape, *[1] * ones) else value
