"""A saved model is loaded with all its tensors or not at all: what a folder lacks is never replaced by random numbers in silence.

Which tensors a folder has to have is what the class and the configuration that it was saved with say. Parts that these do not have, such as another head or a
learnable B, are new because they were asked for, and are named.
"""

import sys
from collections.abc import Iterable

import torch
from transformers.utils import logging


logger = logging.get_logger(__name__)

HUB = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
SHOWN = 20


def _listed(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def check_tensors(source, missing: set[str], unexpected: set[str]) -> None:
    """Raise an OSError that lists what is `missing` or `unexpected` in the weights of `source`, where anything is."""
    found = [
        f"{len(names)} {what} ({_listed(names)})"
        for names, what in ((missing, "missing"), (unexpected, "unexpected"))
        if names
    ]
    if found:
        raise OSError(
            f"{source}: expected all tensors of the model that its configuration describes, and no others; got {' and '.join(found)}. Nothing was made up for "
            "them: save or download the model again."
        )


def check_loaded(model, info: dict, source, options: dict) -> None:
    """Compare what was loaded with what the folder has to have, and name what is new.

    Args:
        info: transformers' loading info. source, options: what `from_pretrained` was given.

    Raises:
        OSError: tensors that the saved model has are missing, or others are there.
    """
    missing, unexpected = set(info["missing_keys"]), set(info["unexpected_keys"])
    if missing or unexpected:
        saved = _saved_names(type(model), source, options)
        prefix = f"{model.base_model_prefix}."
        lost, strange = (
            {name for name in names if _known(name, prefix, saved) == known}
            for names, known in ((missing, True), (unexpected, False))
        )
        check_tensors(source, lost, strange)
    new = missing | {name for name, *_ in info["mismatched_keys"]}
    if new:
        logger.warning(
            f"{source}: {len(new)} tensors are new in a {type(model).__name__} and not loaded, to be trained: {_listed(new)}."
        )


def _known(name: str, prefix: str, saved: set[str]) -> bool:
    """Whether the saved model has a tensor, by the name that it has with a head or without one."""
    return bool({name, prefix + name, name.removeprefix(prefix)} & saved)


def _saved_names(model_class: type, source, options: dict) -> set[str]:
    """The names of all tensors of the model that was saved, as its configuration says."""
    config_class = model_class.config_class
    values, _ = config_class.get_config_dict(source, **{name: options[name] for name in HUB if name in options})
    name = (values.get("architectures") or [model_class.__name__])[0]
    modules = (sys.modules.get(base.__module__) for base in model_class.__mro__)
    saved_class = next(
        (found for module in modules if isinstance(found := getattr(module, name, None), type)), model_class
    )
    with torch.device("meta"):
        return set(saved_class(config_class.from_dict(values)).state_dict())
