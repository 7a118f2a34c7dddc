"""What every B-cos model adds to the transformers model it extends: conversion on construction, from_standard, explanation mode, saving for the Hub.

A family is `class BcosXForY(BcosModelMixin, XForY)` with a `config_class`; the forward pass stays transformers' own.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

from .bcos_batch_norm import UncenteredBatchNorm2d
from .bcos_class_names import class_names
from .bcos_constant_attention import ConstantAttention
from .bcos_conversion import Roles, convert_
from .bcos_dynamic import explanation_mode
from .bcos_layers import Bcos
from .bcos_saving import align_, auto_map_of, copy_code, filled_at_once, origin_of, pipeline_named, whole_weights
from .bcos_state import completed_state, matched_state
from .configuration_bcos import RENAMED, bcos_fields


_borrowing = threading.RLock()


@contextmanager
def changed_at(change: Callable[[Tensor], Tensor], module: nn.Module, before: bool = False) -> Iterator[None]:
    """The output of `module`, or `before` it its first argument, goes through `change`."""
    if before:
        hook = module.register_forward_pre_hook(lambda module, args: (change(args[0]), *args[1:]))
    else:
        hook = module.register_forward_hook(lambda module, args, output: change(output))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def leaf_at(module: nn.Module, before: bool = False) -> Iterator[list[Tensor]]:
    """Cut the graph where `changed_at` changes; the list holds what was there, a leaf, after the forward pass."""
    leaf = []

    def cut(x: Tensor) -> Tensor:
        leaf.append(x.detach().requires_grad_())
        return leaf[0]

    with changed_at(cut, module, before):
        yield leaf


class BcosModelMixin:
    """Mixed in before a transformers model.

    Class attributes of a family:
        roles: which modules play which part.
        twins: transformers module class -> our subclass, where one needs more than its leaves exchanged; `complete()`, if it has it, adds modules.
    """

    roles = Roles(logits=("classifier",))
    twins: dict[type[nn.Module], type[nn.Module]] = {}

    def __init__(self, config, *args, **kwargs) -> None:
        super().__init__(config, *args, **kwargs)
        for module in list(self.modules()):
            if type(module) in self.twins:
                module.__class__ = self.twins[type(module)]
                getattr(module, "complete", lambda: None)()
        self.conversion_report = convert_(self, config, self._roles)
        if not config.keep_biases and self._tied_weights_keys:
            self._tied_weights_keys = {key: value for key, value in self._tied_weights_keys.items() if not key.endswith("bias")}
        self.post_init()

    @property
    def _roles(self) -> Roles:
        return self.roles

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Bcos) and isinstance(module.b, nn.Parameter):
            init.constant_(module.b, module.initial_b)
        if isinstance(module, UncenteredBatchNorm2d):
            module.reset_running_stats()
            for parameter, value in ((module.weight, 1.0), (module.bias, 0.0)):
                if parameter is not None:
                    init.constant_(parameter, value)
            return
        if any(True for own in (module.parameters, module.buffers) for _ in own(recurse=False)):
            super()._init_weights(module)  # a head whose only parameter was its bias has nothing left to initialise

    @classmethod
    def from_standard(cls, model: PreTrainedModel, **fields):
        """The B-cos twin of a transformers model; the model given stays as it is.

        Args:
            model: a model of the family this class extends, with this head, another one or none. A head that it lacks is new and random.
            **fields: configuration fields to set (b, weight_norm, keep_biases, num_labels, ...).

        Returns:
            The twin, in evaluation mode, on the device and in the dtype of `model`; its `conversion_report` accounts for every tensor.

        Raises:
            TypeError: `model` belongs to another family.
        """
        config = cls._config_from(model, fields)
        attention = model.config._attn_implementation
        with torch.device("meta"):
            structure = cls(config)
        state, dropped = matched_state(model, structure)
        tied = getattr(structure, "all_tied_weights_keys", None) or {}
        new = sorted(set(structure.state_dict()) - set(state) - set(tied))
        state = completed_state({key: value.detach().clone() for key, value in state.items()}, structure)
        made = cls.from_pretrained(None, config=config, state_dict=state, dtype=model.dtype, attn_implementation=attention)
        made.conversion_report = replace(structure.conversion_report, dropped=dropped, new=new)
        return made.to(model.device)

    @classmethod
    def _config_from(cls, model: PreTrainedModel, fields: dict):
        standard = next(base for base in cls.config_class.__mro__[1:] if issubclass(base, PreTrainedConfig))
        if type(getattr(model, "config", None)) is not standard:
            raise TypeError(
                f"{cls.__name__}.from_standard: expected a transformers model with a {standard.__name__}, got a {type(model).__name__}. "
                "bcos_hf.bcosify picks the class for a model."
            )
        left_out = {"architectures", "auto_map", "model_type", "transformers_version", *bcos_fields(cls.config_class), *RENAMED}
        if "num_labels" in fields or "id2label" in fields:
            left_out |= {"id2label", "label2id"}
        values = {key: value for key, value in model.config.to_dict().items() if key not in left_out}
        return cls.config_class(**{**values, **origin_of(model.config._name_or_path), **fields})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As transformers' `from_pretrained`; a damaged weight file raises an OSError that says so."""
        with whole_weights(pretrained_model_name_or_path):
            made = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        align_(made[0] if isinstance(made, tuple) else made)
        return made

    def save_pretrained(self, save_directory, is_main_process: bool = True, push_to_hub: bool = False, **kwargs) -> None:
        """As transformers' `save_pretrained`, all or nothing, with the code and the auto_map that let the folder load without bcos_hf."""
        self.config.auto_map = auto_map_of(type(self))
        kwargs = {"save_original_format": False, **kwargs}  # the old key layout has no renames for classes of ours
        if push_to_hub:
            kwargs.setdefault("repo_id", Path(save_directory).name)
        with pipeline_named(self), filled_at_once(save_directory) as folder:
            if is_main_process:
                copy_code(type(self), folder)
            super().save_pretrained(folder, is_main_process=is_main_process, push_to_hub=push_to_hub, **kwargs)

    def explanation_mode(self):
        """A context in which every dynamic factor is constant for autograd, for backward passes of your own; forward values stay."""
        return explanation_mode(self)

    def _labels(self, classes: int) -> list[str] | None:
        return class_names(self.config, classes)

    @contextmanager
    def _explaining(self, probe: Tensor) -> Iterator[None]:
        """Evaluation and explanation mode with gradients on, parameters frozen (nothing is kept for them), and all put back at the end.

        One thread at a time: modes and flags belong to the model, so two that borrowed them at once would restore each other's.
        """
        with _borrowing, torch.inference_mode(False), torch.enable_grad(), explanation_mode(self, probe), ConstantAttention():
            training = [module for module in self.modules() if module.training]
            trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
            try:
                self.eval().requires_grad_(False)
                yield
            finally:
                for module in training:
                    module.training = True
                for parameter in trainable:
                    parameter.requires_grad_(True)
