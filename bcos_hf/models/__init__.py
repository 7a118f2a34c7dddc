"""The B-cos families: one table, one loop that registers them with the Auto classes, and `bcosify`, which dispatches over it.

The other files of this folder are flat because they travel with every saved model; this one does not.
"""

import os

import torch
import transformers
from accelerate.utils import extract_model_from_parallel
from transformers import AutoConfig, PreTrainedModel
from transformers.pipelines import PIPELINE_REGISTRY

from . import (
    modeling_bcos_bert,
    modeling_bcos_cifar_resnet,
    modeling_bcos_clip,
    modeling_bcos_clip_resnet,
    modeling_bcos_clip_resnet_vision,
    modeling_bcos_clip_vision,
    modeling_bcos_convnext,
    modeling_bcos_deit,
    modeling_bcos_densenet,
    modeling_bcos_dinov2,
    modeling_bcos_distilbert,
    modeling_bcos_dual_encoder,
    modeling_bcos_gpt2,
    modeling_bcos_llama,
    modeling_bcos_resnet,
    modeling_bcos_resnext,
    modeling_bcos_roberta,
    modeling_bcos_siglip,
    modeling_bcos_siglip_vision,
    modeling_bcos_simple_vit,
    modeling_bcos_vgg,
    modeling_bcos_vit,
    modeling_cifar_resnet,
    modeling_clip_resnet,
    modeling_clip_resnet_vision,
    modeling_densenet,
    modeling_dual_encoder,
    modeling_resnext,
    modeling_simple_vit,
    modeling_vgg,
)
from .bcos_bounds import saved_config
from .bcos_pipelines import PIPELINES, BcosImageExplanationPipeline, BcosTextExplanationPipeline
from .bcos_saving import classes_of, whole_weights


__all__ = [
    "BcosImageExplanationPipeline",
    "BcosTextExplanationPipeline",
    "FAMILIES",
    "STANDARD",
    "bcosify",
    "load_saved",
    "saved_class",
    "standard_of",
    "supported",
    "twin_of",
    "unwrapped",
]

# model_type of the standard model -> the modeling module of its B-cos family
FAMILIES = {
    "bert": modeling_bcos_bert,
    "cifar_resnet": modeling_bcos_cifar_resnet,
    "clip": modeling_bcos_clip,
    "clip_resnet": modeling_bcos_clip_resnet,
    "clip_resnet_vision_model": modeling_bcos_clip_resnet_vision,
    "clip_vision_model": modeling_bcos_clip_vision,
    "convnext": modeling_bcos_convnext,
    "deit": modeling_bcos_deit,
    "densenet": modeling_bcos_densenet,
    "dinov2": modeling_bcos_dinov2,
    "distilbert": modeling_bcos_distilbert,
    "dual_encoder": modeling_bcos_dual_encoder,
    "gpt2": modeling_bcos_gpt2,
    "llama": modeling_bcos_llama,
    "resnet": modeling_bcos_resnet,
    "resnext": modeling_bcos_resnext,
    "roberta": modeling_bcos_roberta,
    "siglip": modeling_bcos_siglip,
    "siglip_vision_model": modeling_bcos_siglip_vision,
    "simple_vit": modeling_bcos_simple_vit,
    "vgg": modeling_bcos_vgg,
    "vit": modeling_bcos_vit,
}
# standard models that transformers lacks
STANDARD = (
    modeling_cifar_resnet,
    modeling_clip_resnet,
    modeling_clip_resnet_vision,
    modeling_densenet,
    modeling_dual_encoder,
    modeling_resnext,
    modeling_simple_vit,
    modeling_vgg,
)

for _module in (*FAMILIES.values(), *STANDARD):
    for _auto, _cls in classes_of(_module).items():
        AutoConfig.register(_cls.config_class.model_type, _cls.config_class, exist_ok=True)
        getattr(transformers, _auto).register(_cls.config_class, _cls, exist_ok=True)

for _pipeline in PIPELINES.values():
    if _pipeline.task_name not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline(
            _pipeline.task_name,
            _pipeline,
            pt_model=getattr(transformers, _pipeline.auto_class),
            type=_pipeline.modality,
        )


def bcosify(source: str | os.PathLike | PreTrainedModel, auto_class: type | None = None, **fields) -> PreTrainedModel:
    """The B-cos twin of a pretrained model (Arya et al., NeurIPS 2024; Wang et al., TMLR 2025).

    Args:
        source: a Hub id, a folder, or a loaded transformers model, which is left untouched.
        auto_class: for an id or folder, the class to load it with, by which a head is chosen (AutoModelForSequenceClassification, ...). None: the class
            that the source was saved with.
        **fields: configuration fields to set (b, weight_norm, keep_biases, num_labels, id2label, ...).

    Returns:
        The twin, in evaluation mode, in float32 (in the dtype of a loaded model), to be fine-tuned. Its `conversion_report` says what became of every
        layer and tensor.

    Raises:
        ValueError: a family or head that is not supported (the message lists what is), a B below 1.
        OSError: a folder without weights, or with damaged ones.
    """
    standard, missing = standard_of(source, auto_class)
    return twin_of(standard, missing, **fields)


def standard_of(source: str | os.PathLike | PreTrainedModel, auto_class: type | None = None) -> tuple[PreTrainedModel, set[str]]:
    """The standard model that `bcosify` takes, and the names of the tensors that its checkpoint lacks, which are random. Arguments and errors as there."""
    source = unwrapped(source)
    if isinstance(source, PreTrainedModel):
        return source, set()
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"bcosify: expected a Hub id, a folder or a transformers model, got a {type(source).__name__}.")
    config = saved_config(source)
    if auto_class is None:
        saved_as = (config.architectures or ["no class"])[0]
        _twin_class(config, saved_as)
        auto_class = _standard_class(saved_as)
    else:
        _family(config)
    with whole_weights(source):
        # in float32: what half precision cannot hold, such as a large running variance, would be lost before the conversion
        model, info = auto_class.from_pretrained(source, output_loading_info=True, dtype=torch.float32)
    return model, set(info["missing_keys"])


def twin_of(standard: PreTrainedModel, missing: set[str], **fields) -> PreTrainedModel:
    """The twin of a loaded model; of its `missing` tensors, which are random, the report says so."""
    twin = _twin_class(standard.config, type(standard).__name__).from_standard(standard, **fields)
    absent = missing & set(twin.state_dict()) - set(twin.conversion_report.new)
    twin.conversion_report.new += sorted(absent)
    return twin


def _family(config):
    module = FAMILIES.get(config.model_type)
    if module is None or getattr(config, "is_decoder", False):
        kind = f"{config.model_type} used as a decoder" if module else config.model_type
        raise ValueError(f"bcosify: expected one of {supported()}; got model_type {kind!r}.")
    return module


def _twin_class(config, class_name: str):
    twin = getattr(_family(config), f"Bcos{class_name}", None)
    if twin is None:
        raise ValueError(f"bcosify: there is no B-cos twin of {class_name}; expected one of {supported()}. Choose a head with auto_class=...")
    return twin


def _standard_class(name: str, *default) -> type:
    ours = next((vars(module)[name] for module in STANDARD if name in vars(module)), None)
    return ours or getattr(transformers, name, *default)


def unwrapped(model):
    """The model inside what torch.compile, DDP, FSDP, accelerate or PEFT wrapped around it; anything else as it is.

    Raises:
        TypeError: an adapter whose weights are not in the model, which would be left out.
    """
    if not isinstance(model, torch.nn.Module):
        return model
    model = extract_model_from_parallel(model, keep_torch_compile=False)
    if isinstance(model, PreTrainedModel) or not hasattr(model, "get_base_model"):
        return model
    raise TypeError(
        f"expected a model without an adapter, got a {type(model).__name__}, whose adapter is no B-cos layer. "
        "Merge it first: model = model.merge_and_unload()."
    )


def saved_class(source: str | os.PathLike) -> type:
    """The class that a model was saved as, by its configuration alone: a B-cos class, or a transformers one.

    Raises:
        ValueError: the configuration names no class, or one that there is not.
    """
    config = saved_config(source)
    name = (config.architectures or [None])[0]
    if name is None:
        raise ValueError(f"{source}: expected the name of a class in config.json (architectures), found none.")
    family = FAMILIES.get(config.model_type.removeprefix("bcos_"))
    found = getattr(family, name, None) or _standard_class(name, None)
    if found is None:
        raise ValueError(f"{source}: it was saved as {name}, a class that neither bcos_hf nor transformers has.")
    return found


def load_saved(source: str | os.PathLike) -> PreTrainedModel:
    """A B-cos model as the class that it was saved as, in evaluation mode.

    Raises:
        ValueError: another model, of which no weights are read.
        OSError: a folder without weights, or with damaged ones.
    """
    cls = saved_class(source)
    if not hasattr(cls, "from_standard"):
        raise ValueError(
            f"{source}: expected a B-cos model, got a {cls.__name__}. Convert it: bcos-hf convert {source} FOLDER."
        )
    return cls.from_pretrained(source).eval()


def supported() -> list[str]:
    """Names of the transformers classes that `bcosify` takes."""
    return sorted({name.removeprefix("Bcos") for module in FAMILIES.values() for name, cls in vars(module).items() if _is_twin(cls, module)})


def _is_twin(cls, module) -> bool:
    """Whether it is a model class of the module's own."""
    return isinstance(cls, type) and issubclass(cls, PreTrainedModel) and cls.__module__ == module.__name__
