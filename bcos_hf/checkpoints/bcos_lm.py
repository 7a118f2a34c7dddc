"""Folders saved by the authors' B-cos LM code (Wang et al., TMLR 2025, arXiv 2502.12992; transformers 4.45): encoders that classify texts, decoders.

Their B-cos layers hold the weight in `.linear`, of which the rows are used with length 1; nothing has a bias. Tokenizer files are left where they are.
"""

import json
import os
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from bcos_hf.models.modeling_bcos_bert import BcosBertForSequenceClassification
from bcos_hf.models.modeling_bcos_distilbert import BcosDistilBertForSequenceClassification
from bcos_hf.models.modeling_bcos_gpt2 import BcosGPT2LMHeadModel
from bcos_hf.models.modeling_bcos_llama import BcosLlamaForCausalLM
from bcos_hf.models.modeling_bcos_roberta import BcosRobertaForSequenceClassification

from .reading import model_of, state_of


WANTED = "a folder saved by the B-cos LM code"
HEAD = "lm_head.linear.weight"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# their class -> ours, and the activation, which in their code is this one whatever the configuration says
CLASSES = {
    "BertForSequenceClassification": (BcosBertForSequenceClassification, {"hidden_act": "gelu"}),
    "DistilBertForSequenceClassification": (BcosDistilBertForSequenceClassification, {"activation": "gelu"}),
    "RobertaForSequenceClassification": (BcosRobertaForSequenceClassification, {"hidden_act": "gelu"}),
    "GPT2LMHeadModel": (BcosGPT2LMHeadModel, {"activation_function": "gelu_new"}),
    "LlamaForCausalLM": (BcosLlamaForCausalLM, {"hidden_act": "silu"}),
}
# of their configuration, what ours says otherwise or has no use for
THEIRS = {"_name_or_path", "architectures", "b", "b_list", "bce", "bcos", "bcos_lm_head", "different_b_per_layer", "dtype", "model_type"}
THEIRS |= {"torch_dtype", "transformers_version"}


def from_bcos_lm(folder: str | os.PathLike, **fields) -> PreTrainedModel:
    """The model of a folder with config.json and model.safetensors (or pytorch_model.bin).

    Args:
        folder: of a BertForSequenceClassification, DistilBert..., Roberta..., GPT2LMHeadModel or LlamaForCausalLM; heads for masked tokens keep a bias
            there, which ours has no place for.
        **fields: configuration fields that shall be others.

    Returns:
        The model in evaluation mode, float32, on the CPU, with the B of its configuration (one a layer, where it says so), and its labels.

    Raises:
        ValueError: a folder without these files; another class, or a model that is no B-cos model; tensors that are missing, unexpected or of another
            shape; files that are damaged or hold other Python objects than tensors, none of which is run.
    """
    given = _config_of(Path(folder))
    cls, activation = CLASSES[given["architectures"][0]]
    b = [*given["b_list"], given["b"]] if given.get("different_b_per_layer") else given["b"]
    values = {name: value for name, value in given.items() if name not in THEIRS}
    tensors = _tensors_of(Path(folder))
    head = {"convert_lm_head": True} if given.get("bcos_lm_head") or HEAD in tensors else {}
    head |= {"tie_word_embeddings": False} if HEAD in tensors else {}  # their B-cos head is tied to nothing, whatever the configuration says
    config = cls.config_class(**{**values, **activation, **head, "b": b, "keep_biases": False, **fields})
    return model_of(cls, config, {name.replace(".linear.", "."): value for name, value in tensors.items()}, WANTED)


def _config_of(folder: Path) -> dict:
    """config.json, of which class, `bcos` and B are known to be there."""
    try:
        given = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"Expected {WANTED}, with a config.json; got {os.fspath(folder)!r} ({error}).") from error
    names = given.get("architectures") if isinstance(given, dict) else None
    if not isinstance(names, list) or len(names) != 1 or names[0] not in CLASSES:
        raise ValueError(f"Expected {WANTED}, config.json with architectures of one of {list(CLASSES)}; got {names}.")
    absent = [name for name in ("b", *(["b_list"] if given.get("different_b_per_layer") else [])) if given.get(name) is None]
    if not given.get("bcos") or absent:
        raise ValueError(f"Expected {WANTED}, config.json with bcos true and b; got bcos {given.get('bcos')}, missing: {absent or 'none'}.")
    return given


def _tensors_of(folder: Path) -> dict[str, Tensor]:
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise ValueError(f"Expected {WANTED}, with one of {WEIGHTS}; got {sorted(file.name for file in folder.iterdir())}.")
    return state_of(path, WANTED)
