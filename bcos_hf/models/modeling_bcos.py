"""What every B-cos model adds to the transformers model it extends: conversion on construction, from_standard, explanation mode, saving for the Hub.

A family is `class BcosXForY(BcosModelMixin, XForY)` with a `config_class`; the forward pass stays transformers' own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import logging

from .bcos_bounds import check_built, check_folder, no_larger_than_stored
from .bcos_constant_attention import ConstantAttention
from .bcos_conversion import Roles, convert_
from .bcos_dynamic import explanation_mode
from .bcos_explanation import Explanation, residual_of
from .bcos_layers import Bcos
from .bcos_linearity import refuse_nonlinear
from .bcos_loading import check_loaded
from .bcos_normalization import normalization_of
from .bcos_saving import align_, auto_map_of, copy_code, origin_of, pipeline_named, replaced_weights, whole_weights
from .bcos_sharing import sharing
from .bcos_signature import called_as
from .bcos_state import completed_state, matched_state
from .bcos_writing import filled_at_once
from .configuration_bcos import RENAMED, bcos_fields


logger = logging.get_logger(__name__)
RESIDUAL = 1e-3  # relative; what more is missing in float32 is no rounding
EXACT = (torch.float32, torch.float64)
_warned = WeakSet()  # models that were said not to be exact


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

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        models = (base for base in cls.__mro__ if issubclass(base, PreTrainedModel))
        standard = next((base for base in models if not issubclass(base, BcosModelMixin)), None)
        if standard is not None:
            cls.forward = called_as(cls.forward, standard.forward)

    def __init__(self, config, *args, **kwargs) -> None:
        super().__init__(config, *args, **kwargs)
        for module in list(self.modules()):
            if type(module) in self.twins:
                module.__class__ = self.twins[type(module)]
                getattr(module, "complete", lambda: None)()
        check_built(self)
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
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            for parameter, value in ((module.weight, 1.0), (module.bias, 0.0)):
                if parameter is not None:
                    init.constant_(parameter, value)
            return
        if any(True for own in (module.parameters, module.buffers) for _ in own(recurse=False)):
            super()._init_weights(module)  # a head whose only parameter was its bias has nothing left to initialise

    def _initialize_missing_keys(self, *args, **kwargs) -> None:
        """As transformers'; layers of ours inside a model of transformers' have no bias, say, which that expects."""
        inside = [module for module in self.modules() if isinstance(module, PreTrainedModel) and module is not self]
        for model in inside:
            model._init_weights = partial(self._init_inside, model._init_weights)
        try:
            super()._initialize_missing_keys(*args, **kwargs)
        finally:
            for model in inside:
                del model._init_weights

    def _init_inside(self, own: Callable[[nn.Module], None], module: nn.Module) -> None:
        """Numbers that no folder has (positions, say) only the model inside knows; left out, they would be whatever was in memory."""
        (own if module._non_persistent_buffers_set else self._init_weights)(module)

    @classmethod
    def from_standard(
        cls, model: PreTrainedModel, pixels: tuple[Tensor, Tensor] | None = None, check_linear: bool = True, **fields
    ):  # fmt: skip
        """The B-cos twin of a transformers model; the model given stays as it is.

        Args:
            model: a model of the family this class extends, with this head, another one or none. A head that it lacks is new and random.
            pixels: (mean, std), [C] each, that the model's images are normalized with, for input_encoding "add_inverse", whose images are in [0, 1];
                None: those of the image processor beside the model.
            check_linear: refuse parts that no rule makes dynamic linear; the first conversion to a class explains a
                random input.
            **fields: configuration fields to set (b, weight_norm, keep_biases, num_labels, ...).

        Returns:
            The twin, in evaluation mode, on the device and in the dtype of `model`; its `conversion_report` accounts for every tensor.

        Raises:
            TypeError: `model` belongs to another family.
            ValueError: a part that no rule covers, so that explanations could not be exact.
        """
        config = cls._config_from(model, fields)
        attention = model.config._attn_implementation
        with torch.device("meta"):
            structure = cls(config)
        state, dropped = matched_state(model, structure)
        tied = getattr(structure, "all_tied_weights_keys", None) or {}
        new = sorted(set(structure.state_dict()) - set(state) - set(tied))
        if config.input_encoding == "add_inverse" and pixels is None:
            pixels = normalization_of(model)
        state = completed_state({key: value.detach().clone() for key, value in state.items()}, structure, pixels)
        made = cls.from_pretrained(None, config=config, state_dict=state, dtype=model.dtype, attn_implementation=attention)
        made.conversion_report = replace(structure.conversion_report, dropped=dropped, new=new)
        made = made.to(model.device)
        if check_linear:
            refuse_nonlinear(made)
        return made

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
        """As transformers' `from_pretrained`, with all tensors or none.

        Raises:
            ValueError: sizes that no model has, before anything is built.
            OSError: a damaged weight file, or one that lacks tensors of the saved model or has others, which are listed. Parts that the saved model does
                not have, such as another head, are new and are logged.
        """
        check_folder(pretrained_model_name_or_path, kwargs.get("subfolder"))
        wanted = kwargs.pop("output_loading_info", False)
        with whole_weights(pretrained_model_name_or_path), no_larger_than_stored(pretrained_model_name_or_path):
            made, info = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        if pretrained_model_name_or_path is not None:
            check_loaded(made, info, pretrained_model_name_or_path, kwargs)
        align_(made)
        return (made, info) if wanted else made

    def save_pretrained(self, save_directory, is_main_process: bool = True, push_to_hub: bool = False, **kwargs) -> None:
        """As transformers' `save_pretrained`, all or nothing, with the code and the auto_map that let the folder load without bcos_hf."""
        self.config.auto_map = auto_map_of(type(self))
        kwargs = {"save_original_format": False, **kwargs}  # the old key layout has no renames for classes of ours
        if push_to_hub:
            kwargs.setdefault("repo_id", Path(save_directory).name)
        with pipeline_named(self), filled_at_once(save_directory, replaced_weights) as folder:
            if is_main_process:
                copy_code(type(self), folder)
            super().save_pretrained(folder, is_main_process=is_main_process, push_to_hub=push_to_hub, **kwargs)

    def explanation_mode(self):
        """A context in which every dynamic factor is constant for autograd, for backward passes of your own; forward values stay."""
        return explanation_mode(self)

    def _check_statistics(self) -> None:
        """Raise a ValueError for running statistics that are not finite, which names them."""
        statistics = {name: value for name, value in self.named_buffers() if name.endswith(("running_mean", "running_var"))}
        if statistics and not torch.stack([value.sum(dtype=torch.float64) for value in statistics.values()]).isfinite().all():
            names = [name for name, value in statistics.items() if not value.isfinite().all()]
            raise ValueError(f"running statistics: expected finite numbers, got NaN or infinity in {names[:5]}. Training diverged; take an earlier checkpoint.")

    def _stated(self, made: Explanation) -> Explanation:
        """The explanation; once a model, a warning if it is not exact."""
        if made.residual.dtype in EXACT and made.logits.dtype in EXACT and self not in _warned and residual_of(made) > RESIDUAL:
            _warned.add(self)
            logger.warning(
                f"explain: the contributions and the constant miss the logit by {residual_of(made):.2g} of their absolute sum; up to {RESIDUAL:g} is rounding. "
                f"A part of this {type(self).__name__} is not dynamic linear: bcos_hf.verify(model, **inputs) says which."
            )
        return made

    @contextmanager
    def _explaining(self, probe: Tensor | None) -> Iterator["BcosModelMixin"]:
        """A copy of this model over the same tensors, in evaluation and explanation mode, parameters frozen (nothing is kept for them), gradients on."""
        self._check_statistics()
        model = sharing(self)
        with torch.inference_mode(False), torch.enable_grad(), explanation_mode(model, probe), ConstantAttention():
            yield model
