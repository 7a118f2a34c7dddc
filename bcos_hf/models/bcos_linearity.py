"""A conversion that a rule is missing for is refused: nothing that depends on the input may be a factor of what does.

Autograd keeps the factors of a product, and the argument or result of every function that bends, for the backward
pass. So one explanation of a random input says it, whatever the names and the weights are: where a tensor that is kept
has a gradient itself, the derivative is not constant. That finds a product of two branches, an activation called as a
function, and an attention whose probabilities are not constant. A constant that is added keeps nothing; it is found by
what the contributions lack.
"""

import json
from collections.abc import Iterator
from functools import cache, partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten
from transformers.utils import logging

from .bcos_explanation import Explanation, residual_of
from .bcos_sharing import sharing
from .bcos_verifying import text_tower, tolerance_of, verify


logger = logging.get_logger(__name__)
LENGTH = 8  # of a random text
SIDE = 32  # of a random image, for models that take any
# how functions are named that keep more than their factors -> those of it that have to be constant; the rest says of
# what shape something was, or where it is positive or largest
NOTHING = ("Relu", "MaxPool", "AdaptiveMaxPool", "Amax", "MaxBackward", "AvgPool", "AdaptiveAvgPool")
NOTHING += ("Upsample", "ReplicationPad", "ReflectionPad", "ConstantPad")
BATCH_NORMS = ("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm")  # in evaluation mode
FACTORS = {
    "Convolution": ("_saved_weight",),
    "ScaledDotProduct": ("_saved_query", "_saved_key"),
    **dict.fromkeys(BATCH_NORMS, ("_saved_weight",)),
    **dict.fromkeys(NOTHING, ()),
}
# fields that do not say what is built
NAMES = ("id2label", "label2id", "base_model", "base_revision", "model_type", "architectures", "auto_map")
NAMES += ("transformers_version", "dtype", "_name_or_path")
_tried = set()  # (class, fields that say what is built, sizes aside)


def random_input(model: nn.Module) -> dict:
    """What `explain` of this model takes: one text, or one image, and prompts where it compares."""
    generator, config = torch.Generator().manual_seed(0), model.config
    ids = None
    if _reads_texts(model):
        ids = torch.randint(getattr(config, "text_config", config).vocab_size, (1, LENGTH), generator=generator)
    if not _reads_images(model):
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "position": LENGTH - 1}
    size = getattr(getattr(config, "vision_config", config), "image_size", None) or SIDE
    height, width = (size, size) if isinstance(size, int) else size
    draw = torch.rand if config.input_encoding == "add_inverse" else torch.randn
    inputs = {"pixel_values": draw(1, config.num_channels, height, width, generator=generator)}
    if ids is not None:
        return inputs | {"input_ids": ids}
    if hasattr(model, "image_embeds"):
        inputs["text_embeds"] = torch.randn(2, model._embed_dim, generator=generator)
    return inputs


def _reads_images(model: nn.Module) -> bool:
    return hasattr(model, "image_embeds") or model.main_input_name == "pixel_values"


def _reads_texts(model: nn.Module) -> bool:
    return getattr(model.config, "convert_text", False) if _reads_images(model) else True


def refuse_nonlinear(model: nn.Module) -> None:
    """Refuse a part that no rule covers; once for each class and the fields of its configuration that are no sizes.

    Raises:
        ValueError: names the modules.
    """
    key = (type(model), json.dumps(_kinds(model.config.to_dict()), sort_keys=True, default=str))
    if key in _tried or model.device.type == "meta":
        return
    try:
        blamed = _blamed(model, random_input(model))
    except (ValueError, RuntimeError) as error:  # numbers that are not finite, a kernel that a device lacks
        logger.warning(
            f"{type(model).__name__}: whether explanations are exact could not be tried ({error}). "
            "See bcos_hf.verify(model, **inputs)."
        )
        return
    if blamed:
        raise ValueError(
            f"{type(model).__name__}: no rule makes {', '.join(blamed[:6])} dynamic linear, so explanations could not "
            "be exact: expected no product of two parts of the input, no activation that is called as a function, no "
            "attention whose probabilities keep their gradient and no constant that is no bias. Give it a twin, or convert with "
            "check_linear=False and see bcos_hf.verify(model, **inputs)."
        )
    _tried.add(key)


def _kinds(values: dict) -> dict:
    """What a configuration says besides sizes and names."""
    made = {}
    for name, value in values.items():
        if name in NAMES:
            continue
        if isinstance(value, dict):
            made[name] = _kinds(value)
        elif isinstance(value, bool | str | list | tuple | None):
            made[name] = value
        else:
            made[name] = value > 1
    return made


def _blamed(model: nn.Module, inputs: dict) -> list[str]:
    kept, made = kept_factors(model, inputs)
    inexact = made is not None and not residual_of(made) <= tolerance_of(model, made)
    if inexact and not kept:
        return verify(model, **inputs).blamed
    return [f"{name} ({function})" for name, function in kept.items()]


def kept_factors(model: nn.Module, inputs: dict) -> tuple[dict[str, str], Explanation | None]:
    """Module name -> the function in it that keeps what depends on the input; and the explanation, where made."""
    watched, look, made = sharing(model), _Look(), None
    for name, module in watched.named_modules():
        if not name or model._roles.converts(name):
            module.register_forward_pre_hook(partial(look.before, name), with_kwargs=True)
            module.register_forward_hook(look.after)
    try:
        made = watched.explain(**inputs)
        text_tower(watched, inputs)
    except TypeError:  # no head: all its modules have run
        pass
    return look.found, made


class _Look:
    """Hooks that look at each part of the graph once, when it is made.

    What a module reads belongs to the one around it, the rest of its output to itself.
    """

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self.inside: list[str] = []
        self.seen = {}  # keeps the nodes, and with them their identity

    def before(self, name: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """A hook before a module."""
        self._look((args, kwargs))
        self.inside.append(name)

    def after(self, module: nn.Module, args: tuple, output) -> None:
        """A hook after a module."""
        self._look(output)
        self.inside.pop()

    def _look(self, values) -> None:
        nodes = [value.grad_fn for value in tree_flatten(values)[0] if isinstance(value, Tensor)]
        new = []
        while nodes:
            node = nodes.pop()
            if node is None or node in self.seen:
                continue
            self.seen[node] = True
            new.append(node)
            nodes += [before for before, _ in node.next_functions]
        name = self.inside[-1] if self.inside else ""
        for node in new:
            if any(value.requires_grad and self._depends(value) for value in _saved(node)):
                self.found.setdefault(name or "(the model itself)", node.name())

    def _depends(self, value: Tensor) -> bool:
        """Whether any of it does; queries and keys, cut off, may lie in one tensor with values."""
        leaves = [node.variable for node in self.seen if hasattr(node, "variable")]
        grads = torch.autograd.grad(value, leaves, torch.ones_like(value), retain_graph=True, allow_unused=True)
        return any(grad is not None and bool((grad != 0).any()) for grad in grads)


def _saved(node) -> Iterator[Tensor]:
    known = (names for start, names in FACTORS.items() if node.name().startswith(start))
    names = next(known, None)
    names = _saved_names(type(node)) if names is None else names
    saved = (getattr(node, name) for name in names)
    for value in chain(saved, getattr(node, "saved_tensors", ())):
        yield from (
            part for part in (value if isinstance(value, list | tuple) else (value,)) if isinstance(part, Tensor)
        )


@cache
def _saved_names(kind: type) -> list[str]:
    return [name for name in dir(kind) if name.startswith("_saved_")]
