"""OpenAI's CLIP with a residual image tower (RN50, RN101, RN50x4, x16, x64) as a CLIPResNetModel.

Their files are TorchScript archives; a state dict saved from one, or from open-source ports with the same names, is taken too. Sizes are read off the shapes.
"""

import os
import re

from torch import Tensor
from transformers import CLIPTextConfig

from bcos_hf.models.modeling_clip_resnet import CLIPResNetConfig, CLIPResNetModel

from . import names
from .reading import model_of, state_of


WANTED = "a CLIP ResNet"
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # numbers that the archives keep beside the weights
HEAD_WIDTH = 64  # of the text tower and of the attention pool, in every published size

# OpenAI's name (a pattern) -> transformers' name
NAMES = (
    (r"visual\.(.+)", r"vision_model.\1"),
    (r"token_embedding\.weight", "text_model.embeddings.token_embedding.weight"),
    (r"positional_embedding", "text_model.embeddings.position_embedding.weight"),
    (r"transformer\.resblocks\.(\d+)\.ln_([12])\.(weight|bias)", r"text_model.encoder.layers.\1.layer_norm\2.\3"),
    (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.(weight|bias)", r"text_model.encoder.layers.\1.self_attn.out_proj.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(weight|bias)", r"text_model.encoder.layers.\1.mlp.fc1.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(weight|bias)", r"text_model.encoder.layers.\1.mlp.fc2.\2"),
    (r"ln_final\.(weight|bias)", r"text_model.final_layer_norm.\1"),
    (r"text_projection", "text_projection.weight"),
    (r"logit_scale", "logit_scale"),
)
IN_PROJ = re.compile(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")  # queries, keys and values, one above the other


def from_openai_clip(source: str | os.PathLike | dict[str, Tensor]) -> CLIPResNetModel:
    """The model of a state dict, or of a file that holds one or a TorchScript archive; in evaluation mode, float32.

    Raises:
        ValueError: tensors are missing or unexpected (the message names them), or of another shape; a CLIP with a ViT, which transformers has itself; a
            file that is damaged or holds other Python objects than tensors, none of which is run.
    """
    given = {name: value for name, value in state_of(source, WANTED).items() if name not in NOT_WEIGHTS}
    if "visual.proj" in given or "visual.class_embedding" in given:
        raise ValueError(
            "from_openai_clip: expected a residual image tower, got a ViT, which transformers has: CLIPModel.from_pretrained('openai/clip-vit-...')."
        )
    state, unexpected = _renamed(given)
    return model_of(CLIPResNetModel, _config_of(given), state, WANTED, unexpected)


def _config_of(given: dict[str, Tensor]) -> CLIPResNetConfig:
    tower = ("layer1.0.conv1.weight", "attnpool.positional_embedding", "attnpool.c_proj.weight")
    needed = (*(f"visual.{name}" for name in tower), "ln_final.weight", "token_embedding.weight", "positional_embedding")
    absent = [name for name in needed if name not in given]
    if absent:
        raise ValueError(f"Expected the tensors of {WANTED}; missing: {absent}; got {len(given)} tensors, such as {sorted(given)[:5]}.")
    width, depths = len(given[needed[0]]), names.counts(given, r"visual\.layer(\d+)\.(\d+)\.")
    side = round((len(given[needed[1]]) - 1) ** 0.5)
    text_width = len(given["ln_final.weight"])
    layers = {found[1] for name in given if (found := re.match(r"transformer\.resblocks\.(\d+)\.", name))}
    vision = dict(width=width, depths=depths, image_size=side * 2 ** (len(depths) + 1), projection_dim=len(given[needed[2]]))
    vocabulary = len(given["token_embedding.weight"])
    text = dict(hidden_size=text_width, intermediate_size=4 * text_width, num_attention_heads=max(1, text_width // HEAD_WIDTH), num_hidden_layers=len(layers))
    text |= dict(vocab_size=vocabulary, max_position_embeddings=len(given["positional_embedding"]), bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1)
    return CLIPResNetConfig(vision_config=vision, text_config=CLIPTextConfig(**text, pad_token_id=0).to_dict())


def _renamed(given: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors under transformers' names, and the names that have none."""
    state, unknown = {}, []
    for name, value in given.items():
        if found := IN_PROJ.fullmatch(name):
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                state[f"text_model.encoder.layers.{found[1]}.self_attn.{part}_proj.{found[2]}"] = piece
            continue
        pattern = next(((pattern, to) for pattern, to in NAMES if re.fullmatch(pattern, name)), None)
        if pattern is None:
            unknown.append(name)
        else:
            state[re.sub(*pattern, name)] = value.T if name == "text_projection" else value
    return state, unknown
