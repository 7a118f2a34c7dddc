"""A published file's tensors, and the model that takes all of them: nothing in a file is run, nothing is left out unseen."""

import hashlib
import math
import os
import re
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging

from bcos_hf.models.bcos_bounds import check_sizes
from bcos_hf.visualization.reading import visible

from .torchscript import is_torchscript, stored_members, torchscript_state


HASH = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # of a published file's name: the start of its SHA-256
MOST_UNSTORED = 1 << 30  # bytes


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


def content_of(source: str | os.PathLike, wanted: str):
    """What a file holds: tensors by name (safetensors, TorchScript), or the tensors and plain values that torch saved; no code in it is run.

    `wanted` is for errors. A file may be given by its path or by an https address (see `downloaded`).

    Raises:
        ValueError: a file that is damaged or holds other Python objects than tensors and plain values. OSError: there is no such file.
    """
    file, fetched = file_of(source), "://" in os.fspath(source)
    if not os.path.isfile(file):
        raise FileNotFoundError(f"{os.fspath(source)}: expected a file of {wanted}; got {'a folder' if os.path.isdir(file) else 'no such file'}.")
    try:
        return _read(file)
    except Exception as error:  # whatever a reader makes of bytes that anyone may have put together
        if fetched:
            os.unlink(file)  # so that it is fetched again
        raise ValueError(
            f"Expected {wanted}: a TorchScript archive or a file of tensors alone; got {os.fspath(source)!r}, which is damaged or holds other Python "
            f"objects ({_short(error)}). Nothing in it was run; fetch it again from where it was published."
        ) from error


def _read(file: str):
    if file.endswith(".safetensors"):
        return load_file(file)
    with open(file, "rb") as opened:
        zipped = opened.read(4) == b"PK\x03\x04"
    if zipped and is_torchscript(file):
        return torchscript_state(file)
    if zipped:
        stored_members(file)  # torch does not look at checksums
    return torch.load(file, map_location="cpu", weights_only=True)


def _short(error: Exception) -> str:
    return visible(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}")


def state_of(source: str | os.PathLike | dict[str, Tensor], wanted: str) -> dict[str, Tensor]:
    """The tensors of a state dict, of a file that holds one (safetensors, or torch's, bare or under 'state_dict'), or of a TorchScript archive.

    Arguments and errors are those of `content_of`.
    """
    if isinstance(source, dict):
        return source
    return tensors_in(content_of(source, wanted), source, wanted)


def tensors_in(content, source: str | os.PathLike, wanted: str) -> dict[str, Tensor]:
    """The tensors of what a file holds: plain ones, of which at most a GiB more than what is stored, as a few numbers may be said to be very many."""
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    state = {name: value for name, value in state.items() if isinstance(value, Tensor) and isinstance(name, str)} if isinstance(state, dict) else {}
    unstored = 0
    for name, value in state.items():
        plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
        unstored += max(0, value.numel() * value.element_size() - value.untyped_storage().nbytes()) if plain else math.inf
        if unstored > MOST_UNSTORED:
            shape = f"{visible(name[:80])!r} of shape {list(value.shape)}"
            raise ValueError(f"Expected {wanted}, of plain tensors; got {os.fspath(source)!r}, whose {shape} is not stored in full.")
    return state


def model_of(cls: type[PreTrainedModel], config, state: dict[str, Tensor], wanted: str, unexpected: Iterable[str] = ()) -> PreTrainedModel:
    """The model of a config with every tensor of `state`, in evaluation mode, float32; `unexpected` are names found before that fit nowhere.

    The weight of a 1x1 convolution may stand for that of a linear layer: [M, C, 1, 1] is taken for [M, C], as are all ones at the end of a shape.

    Raises:
        ValueError: tensors are missing, unexpected, or of another shape; the message names them.
    """
    check_sizes(config.to_dict(), wanted, {name: value.shape for name, value in state.items()})
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
