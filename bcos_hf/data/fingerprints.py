"""What a result was made from, as short hashes: a model's weights, how a processor prepares its inputs, the rows of a data set."""

import hashlib
import json

import torch
from datasets import Dataset, IterableDataset


def add_weights(digest, model: torch.nn.Module) -> None:
    """Update a hashlib `digest` with every parameter and buffer that is saved, with their names."""
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def model_fingerprint(model) -> str:
    """Of class, configuration and weights, wherever the model was loaded from."""
    config = {name: value for name, value in model.config.to_dict().items() if name not in ("_name_or_path", "transformers_version", "architectures")}
    digest = hashlib.sha256(f"{type(model).__name__} {json.dumps(config, sort_keys=True, default=str)}".encode())
    add_weights(digest, model)
    return digest.hexdigest()[:24]


def weights_fingerprint(model: torch.nn.Module) -> str:
    """Of the weights alone, after their dtype, as in "float32:..."."""
    digest = hashlib.sha256()
    add_weights(digest, model)
    return f"{str(model.dtype).removeprefix('torch.')}:{digest.hexdigest()[:24]}"


def processor_fingerprint(processor) -> str:
    """Of what a tokenizer or an image processor does."""
    if hasattr(processor, "backend_tokenizer"):
        state = json.loads(processor.backend_tokenizer.to_str()) | {"padding": None, "truncation": None}  # which the last call left there
    elif hasattr(processor, "get_vocab"):
        state = [type(processor).__name__, processor.get_vocab()]
    else:
        state = processor.to_json_string()
    return hashlib.sha256(json.dumps([state, getattr(processor, "model_max_length", None)], sort_keys=True).encode()).hexdigest()[:24]


def dataset_fingerprint(rows: Dataset | IterableDataset) -> str | None:
    """That of `datasets`, which knows where rows come from and what was done to them; None for a stream, which has none."""
    return rows._fingerprint if isinstance(rows, Dataset) else None
