"""A saved folder that loads anywhere: with bcos_hf through the Auto classes, without it through trust_remote_code.

The flat files that define a model travel with it, and the configuration says which class serves which Auto class.
"""

import inspect
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from torch import nn
from transformers.dynamic_module_utils import get_relative_import_files


# how a class name ends -> the Auto class that serves it; the first that fits
AUTO_CLASSES = {
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
    "ForImageClassification": "AutoModelForImageClassification",
    "Backbone": "AutoBackbone",
    "Model": "AutoModel",
}


def auto_class_of(model_class: type) -> str | None:
    """The name of the Auto class that serves a model class; None if none does."""
    return next((auto for end, auto in AUTO_CLASSES.items() if model_class.__name__.endswith(end)), None)


def classes_of(module) -> dict[str, type]:
    """Auto class name -> B-cos model class, of a family's modeling module."""
    models = [cls for _, cls in inspect.getmembers(module, inspect.isclass) if cls.__module__ == module.__name__ and hasattr(cls, "config_class")]
    named = {auto_class_of(cls): cls for cls in models if auto_class_of(cls)}
    zero_shot = next((cls for cls in named.values() if getattr(cls, "zero_shot", False)), None)
    return named if zero_shot is None else {**named, "AutoModelForZeroShotImageClassification": zero_shot}


def auto_map_of(model_class: type) -> dict[str, str]:
    """The `auto_map` of a configuration: every Auto class that the family serves -> 'file.Class'."""
    named = {"AutoConfig": model_class.config_class, **classes_of(sys.modules[model_class.__module__])}
    return {auto: f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}" for auto, cls in named.items()}


def copy_code(model_class: type, folder: str | os.PathLike) -> None:
    """Copy the files that define `model_class`, with all that they import relatively, into `folder`."""
    source = sys.modules[model_class.__module__].__file__
    for file in {source, *get_relative_import_files(source)}:
        shutil.copyfile(file, Path(folder, Path(file).name))


@contextmanager
def pipeline_named(model) -> Iterator[None]:
    """The model's configuration names the pipeline that travels with it while it is saved, and not here, where it may be registered."""
    from .bcos_pipelines import PIPELINES  # so that it travels; here, as it needs transformers' pipelines

    pipeline = next((one for end, one in PIPELINES.items() if type(model).__name__.endswith(end)), None)
    if pipeline is None:
        yield
        return
    row = {"impl": f"bcos_pipelines.{pipeline.__name__}", "pt": [pipeline.auto_class], "type": pipeline.modality}
    model.config.custom_pipelines = {pipeline.task_name: row}
    try:
        yield
    finally:
        del model.config.custom_pipelines


def replaced_weights(made: set[str]) -> Callable[[str], bool]:
    """For `filled_at_once`: a file goes that was made anew, or that holds weights where weights were made, such as a shard too many."""
    weights = re.compile(r"model.*\.safetensors(\.index\.json)?")
    anew = any(weights.fullmatch(name) for name in made)
    return lambda name: name in made or bool(anew and weights.fullmatch(name))


def origin_of(name: str) -> dict[str, str | None]:
    """`base_model` and `base_revision` of a configuration: the Hub id that a model was loaded from, and its commit as the cache has it; {} for a folder."""
    if not name or Path(name).exists():
        return {}
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return {}
    return {"base_model": name, "base_revision": Path(cached).parent.name if isinstance(cached, str) else None}


@contextmanager
def whole_weights(source: str | os.PathLike) -> Iterator[None]:
    """Say which model it is when loading meets a damaged weight file."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{source}: expected a whole safetensors file, got a truncated or damaged one ({error}). Save or download the model again.") from error


def align_(model: nn.Module) -> None:
    """Move weights on the CPU to addresses that are multiples of 64, in place: a file's are as they come, and kernels round by them in another order.

    So a model that is loaded computes, bit for bit, what the one that was saved did.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % 64:
            tensor.data = tensor.data.clone()
