"""B-cosified networks (Arya et al., NeurIPS 2024, arXiv 2411.00715), as the authors' code trains and publishes them, as models of ours.

ResNet, DenseNet, SimpleViT and ViT-C with a classifier, and the image tower of CLIP RN50. Their files are Lightning checkpoints, of which the tensors and
the `model` part of the hyper-parameters are read. The first layer reads [z, -z] in both: its six channels are taken as they are.
"""

import math
import os
import re
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from transformers import PreTrainedModel

from bcos_hf.models.modeling_bcos_clip_resnet_vision import BcosCLIPResNetVisionModel
from bcos_hf.models.modeling_bcos_densenet import BcosDenseNetForImageClassification
from bcos_hf.models.modeling_bcos_resnet import BcosResNetForImageClassification
from bcos_hf.models.modeling_bcos_simple_vit import BcosSimpleViTForImageClassification

from . import names
from .reading import content_of, model_of, tensors_in


WANTED = "a B-cosified network of the authors' code"
AVERAGED = "ema.module."
BESIDE = ("ema.", "clip_model.", "criterion.", "test_criterion.")  # the average, the frozen teacher and the losses
OF_THE_LOSS = r"(ema\.module\.|model\.)?logit_(scale|bias)"  # learned scalars of the SigLIP loss, which an image tower has no use for
LOGIT_BIAS = -math.log(1000 - 1)  # whatever the number of classes
HEAD_WIDTH = 64  # of every published ViT

RESAVE = (
    "A checkpoint that holds Python objects besides, and that you trust, can be saved again as its tensors alone, by whoever made it: "
    "torch.save(torch.load(FILE, map_location='cpu', weights_only=False)['state_dict'], NEW_FILE)."
)


def from_bcosification(source: str | os.PathLike | dict, ema: bool = True, **fields) -> PreTrainedModel:
    """The model of a Lightning checkpoint, or of the state dict in it, with or without the prefix of the training module.

    Args:
        source: a file, a checkpoint that is loaded already, or a state dict.
        ema: take the averaged weights, where there are some.
        **fields: configuration fields that tensors do not tell, or that shall be others: b, inner_activation, head_before_pooling, max_pool, logit_bias,
            num_attention_heads. Where neither they nor the hyper-parameters of the checkpoint say, they are the published ones (B = 2).

    Returns:
        The model in evaluation mode, float32, on the CPU. Of a CLIP, the image tower alone: the text tower is OpenAI's, untouched (`from_openai_clip`).

    Raises:
        ValueError: tensors are missing or unexpected (the message names them), or of another shape; inputs that are not [z, -z]; a file that is damaged or
            holds other Python objects than tensors and plain values, none of which is run.
    """
    content = source if isinstance(source, dict) else _content_of(source)
    given, unexpected = _network(content.get("state_dict", content) if content is source else tensors_in(content, source, WANTED), ema)
    family = next((family for family in FAMILIES if family.marks <= given.keys()), None)
    if family is None:
        marks = [sorted(family.marks) for family in FAMILIES]
        raise ValueError(f"Expected {WANTED}, with the tensors of one of {marks}; got {len(given)} tensors, such as {sorted(given)[:5]}.")
    settings = _settings_of(content)
    if settings.get("bfy_mean_zero") or (settings and "bcosify_args" not in settings):
        raise ValueError(f"Expected {WANTED} that reads [z, -z] (no bfy_mean_zero), with bcosify_args in its hyper-parameters; got {settings}.")
    state, unknown = names.renamed({name: _as_ours(name, value, settings) for name, value in given.items()}, family.table, str)
    common = dict(b=settings.get("bcos_args", {}).get("b", 2.0), keep_biases=any(name.endswith(".bias") for name in state))
    common["learnable_b"] = any(name.endswith(".b") for name in state)
    try:
        shape = family.config_of(given, settings)
    except KeyError as error:
        raise ValueError(f"Expected the tensors of {WANTED}, a {family.cls.__name__}; missing: {error}; got {len(given)} tensors.") from error
    config = family.cls.config_class(**{**common, **shape, **fields})
    return model_of(family.cls, config, state, WANTED, {*unexpected, *unknown})


def _content_of(source: str | os.PathLike):
    try:
        return content_of(source, WANTED)
    except ValueError as error:
        if "://" in os.fspath(source):
            raise
        raise ValueError(f"{error} {RESAVE}") from error


def _settings_of(content) -> dict:
    """The `model` part of the hyper-parameters that a checkpoint was trained with; {} where only tensors are left."""
    hyper = content.get("hyper_parameters") if isinstance(content, dict) else None
    found = hyper.get("model") if isinstance(hyper, dict) else None
    return found if isinstance(found, dict) else {}


def _network(state: dict[str, Tensor], ema: bool) -> tuple[dict[str, Tensor], set[str]]:
    """The tensors of the network, without the prefixes of what it was trained in; and the names beside them that nothing is known of."""
    state = {name: value for name, value in state.items() if not re.fullmatch(OF_THE_LOSS, name)}
    averaged = {name.removeprefix(AVERAGED): value for name, value in state.items() if name.startswith(AVERAGED)}
    trained = {name: value for name, value in state.items() if not name.startswith(BESIDE)}
    unexpected = {name for name in trained if averaged and name.removeprefix("model.") not in averaged}
    chosen = averaged if averaged and ema else trained
    if not any(name.startswith("model.") for name in chosen):
        raise ValueError(
            f"Expected {WANTED}, whose names begin with 'model.'; got {len(chosen)} tensors, such as {sorted(chosen)[:5]}. Networks of B-cos v2, whose layers "
            "divide by the length of their rows, have the same names without it."
        )
    return {names.bare(re.sub(r"^model\.(?=model\.)", "", name)): value for name, value in chosen.items()}, unexpected


def _as_ours(name: str, value: Tensor, settings: dict) -> Tensor:
    """An exponent that was learned by its distance from 2 is stored as that."""
    return value + 2 if name.endswith(".b") and settings.get("bcosify_args", {}).get("learn_b") else value


def _activations(settings: dict) -> dict:
    asked = settings.get("bcosify_args", {})
    norm = "uncentered" if asked.get("norm_layer", "BnUncV2") in ("BnUncV2", "BnUnc2d") else "centered"
    return dict(inner_activation="keep" if asked.get("act_layer", True) else "identity", batch_norm=norm)


def _classifier(head: Tensor, settings: dict) -> dict:
    return dict(_activations(settings), num_labels=len(head), head_before_pooling=head.dim() == 4, logit_bias=LOGIT_BIAS)


def _resnet(given: dict[str, Tensor], settings: dict) -> dict:
    depths, kind, last = names.counts(given, r"layer(\d+)\.(\d+)\."), "basic", 2
    if "layer1.0.conv3.weight" in given:
        kind, last = "bottleneck", 3
    sizes = [len(given[f"layer{stage}.0.conv{last}.weight"]) for stage in range(1, len(depths) + 1)]
    made = dict(depths=depths, layer_type=kind, embedding_size=len(given["conv1.weight"]), hidden_sizes=sizes)
    return made | _classifier(given["fc.weight"], settings)


def _densenet(given: dict[str, Tensor], settings: dict) -> dict:
    depths = names.counts(given, r"features\.(\d+)\.denselayer(\d+)\.")
    inner, growth = (len(given[f"features.4.denselayer1.conv{i}.weight"]) for i in (1, 2))
    made = dict(depths=depths, embedding_size=len(given["features.0.weight"]), growth_rate=growth, bottleneck=inner // growth)
    return made | _classifier(given["classifier.weight"], settings)


def _clip(given: dict[str, Tensor], settings: dict) -> dict:
    made = dict(depths=names.counts(given, r"layer(\d+)\.(\d+)\."), width=len(given["layer1.0.conv1.weight"]))
    return made | dict(projection_dim=len(given["attnpool.c_proj.weight"])) | _activations(settings)


def _simple_vit(given: dict[str, Tensor], settings: dict) -> dict:
    hidden, columns = given["to_patch_embedding.linear.weight"].shape
    convolutions = sorted(int(match[1]) for name in given if (match := re.fullmatch(r"to_patch_embedding\.conv_stem\.(\d+)\.weight", name)))
    stem = [len(given[f"to_patch_embedding.conv_stem.{i}.weight"]) for i in convolutions if not i % 3]  # then come a norm and an activation
    made = dict(hidden_size=hidden, stem_channels=stem, patch_size=round((columns / (stem[-1] if stem else 6)) ** 0.5))
    made |= dict(num_hidden_layers=len({match[1] for name in given if (match := re.match(r"transformer\.encoder_(\d+)\.", name))}))
    made |= dict(num_attention_heads=max(1, len(given["transformer.encoder_0.attn.to_qkv.weight"]) // 3 // HEAD_WIDTH))
    made |= dict(intermediate_size=len(given["transformer.encoder_0.ff.net.linear1.weight"]), num_labels=len(given["linear_head.linear.weight"]))
    made |= dict(inner_activation="keep" if settings.get("act_layer", True) else "identity")
    made |= dict(head_before_pooling=settings.get("args", {}).get("gap_reorder", True))
    return made | dict(logit_bias=settings.get("logit_bias", LOGIT_BIAS) if settings.get("logit_layer", True) else None)


class Family(NamedTuple):
    """A kind of network: its class, what its tensors are called, which of them are always there, and what they say of its configuration."""

    cls: type[PreTrainedModel]
    table: names.Table
    config_of: Callable[[dict[str, Tensor], dict], dict]
    marks: set[str]


FAMILIES = (
    Family(BcosResNetForImageClassification, names.RESNET, _resnet, {"conv1.weight", "fc.weight"}),
    Family(BcosDenseNetForImageClassification, names.DENSENET, _densenet, {"features.0.weight", "classifier.weight"}),
    Family(BcosSimpleViTForImageClassification, names.SAME, _simple_vit, {"to_patch_embedding.linear.weight", "linear_head.linear.weight"}),
    Family(BcosCLIPResNetVisionModel, names.CLIP_RESNET, _clip, {"conv1.weight", "attnpool.c_proj.weight"}),
)
