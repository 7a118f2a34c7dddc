"""In-place conversion: which standard layer becomes which B-cos layer, as data, and the report of what was done.

Structure only: classes are exchanged and biases removed, no number is computed, so that it works on the meta device and under sharding. Numbers that a
conversion does compute belong to `from_standard`.

Source: Arya et al., NeurIPS 2024 (arXiv 2411.00715) section 3; Wang et al., TMLR 2025 (arXiv 2502.12992) section 3.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from .bcos_activations import GATES, LINEAR_ACTIVATIONS, gated
from .bcos_attention import QueryKey
from .bcos_dynamic import Dynamic
from .bcos_head import BcosLogits
from .bcos_layers import Bcos, BcosConv1D, BcosConv2d, BcosLinear
from .bcos_norms import BcosGroupNorm, BcosLayerNorm, BcosRMSNorm


# names of projections, over all families; everything else that is linear becomes a B-cos layer
QUERY_KEY = ("query", "key", "q_lin", "k_lin")
LINEAR = {"value": "attention is linear in the values", "v_lin": "attention is linear in the values"}
LINEAR |= dict.fromkeys(("decoder", "vocab_projector"), "the language model head stays a plain linear layer, tied to the embeddings")

BCOS = {nn.Linear: BcosLinear, nn.Conv2d: BcosConv2d, Conv1D: BcosConv1D}
NORMS = {nn.LayerNorm: BcosLayerNorm, nn.GroupNorm: BcosGroupNorm, nn.RMSNorm: BcosRMSNorm}
KEPT = {
    nn.Embedding: "makes the input that is explained",
    nn.Dropout: "does nothing in evaluation",
    nn.CrossEntropyLoss: "a loss, not part of the prediction",
    **dict.fromkeys(LINEAR_ACTIVATIONS, "piecewise linear, its derivative is its gate"),
}


@dataclass
class ConversionReport:
    """What a conversion did. `str()` is a table, `to_dict()` goes into a JSON file.

    Attributes:
        converted: (module name, class before, class after, note) of each exchanged layer.
        kept: (module name, class, reason) of each leaf that stayed.
        dropped: parameter name -> reason, for every tensor of the source that the B-cos model does not have.
        new: names of the tensors that the source did not have (a fresh head), initialised at random.
    """

    converted: list[tuple[str, str, str, str]] = field(default_factory=list)
    kept: list[tuple[str, str, str]] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)

    def to_dict(self) -> dict:
        """The report as plain lists and dicts."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{name}: {before} -> {after} ({note})" for name, before, after, note in self.converted]
        lines += [f"{name}: {cls} kept ({reason})" for name, cls, reason in self.kept]
        lines += [f"{name}: dropped ({reason})" for name, reason in self.dropped.items()]
        return "\n".join(lines + [f"{name}: new, initialised at random" for name in self.new])


def convert_(model: nn.Module, config, logits: Iterable[str] = (), head_activations: Iterable[str] = ()) -> ConversionReport:
    """Turn the standard layers of `model` into B-cos layers, in place.

    Args:
        model: a model of standard layers; parameter names stay.
        config: has the fields of `BcosConfigMixin`.
        logits: names of the modules that make the class logits.
        head_activations: names of the activations that `config.head_activation` is about.

    Raises:
        ValueError: a leaf module that is in no table; converting around it would make explanations silently incomplete.
    """
    report = ConversionReport()
    for name, module in list(model.named_modules()):
        before = type(module).__name__
        if isinstance(module, Dynamic) or (next(module.children(), None) is not None and type(module) not in BCOS):
            note = ""
        elif type(module) in BCOS:
            note = _convert_linear_(name, module, config, name in logits)
        elif type(module) in NORMS:
            module.__class__, note = NORMS[type(module)], "deviation is a dynamic factor"
        elif name in head_activations and config.head_activation == "identity":
            module.__class__, note = nn.Identity, "head activation dropped, as published"
        elif type(module) in GATES:
            note = "a gate" if gated(module) else ""
        elif type(module) in KEPT:
            report.kept.append((name, before, KEPT[type(module)]))
            note = ""
        else:
            known = sorted(cls.__name__ for cls in (*BCOS, *NORMS, *GATES, *KEPT))
            raise ValueError(f"{name}: no rule for a {before}, so explanations could not be exact. There are rules for {', '.join(known)}.")
        if note:
            report.converted.append((name, before, type(module).__name__, note))
        if not config.use_bias and isinstance(getattr(module, "bias", None), nn.Parameter):
            module.bias = None
    return report


def _convert_linear_(name: str, module: nn.Module, config, is_logits: bool) -> str:
    leaf = name.rpartition(".")[2]
    if leaf in QUERY_KEY:
        module.__class__ = QueryKey
        return "linear, constant in explanations"
    module.__class__ = BcosLogits if is_logits else BCOS[type(module)]
    if leaf in LINEAR:
        module.set_bcos(b=1.0)
        return f"B = 1, {LINEAR[leaf]}"
    index = re.search(r"\.(\d+)\.", name)
    b = config.b_of(int(index[1]) if index else None)
    module.set_bcos(b, config.weight_norm, config.max_out, config.learnable_b, config.norm_eps)
    if config.max_out > 1:
        _widen_(module, config.max_out)
    if is_logits:
        module.logit_bias, module.logit_temperature = config.logit_bias, config.logit_temperature
    return f"B = {b:g}{', learnable' if config.learnable_b else ''}, {config.weight_norm} weight norm"


def _widen_(module: Bcos, max_out: int) -> None:
    """Room for `max_out` rows per unit; freshly initialised unless a state is loaded."""
    rows = 1 if isinstance(module, Conv1D) else 0
    for name, dim in (("weight", rows), ("bias", 0)):
        parameter = getattr(module, name)
        if parameter is not None:
            setattr(module, name, nn.Parameter(parameter.detach().repeat_interleave(max_out, dim)))
    module._is_hf_initialized = False


def completed_state(state: dict[str, torch.Tensor], twin: nn.Module) -> dict[str, torch.Tensor]:
    """`state` with what the layers of `twin` have besides: MaxOut rows (all rows of a unit equal, the same function) and learned exponents."""
    for name, module in twin.named_modules():
        if not isinstance(module, Bcos):
            continue
        rows = 1 if isinstance(module, Conv1D) else 0
        for key, dim in ((f"{name}.weight", rows), (f"{name}.bias", 0)):
            if module.max_out > 1 and key in state:
                state[key] = state[key].repeat_interleave(module.max_out, dim)
        if isinstance(module.b, nn.Parameter):
            state[f"{name}.b"] = torch.tensor(module.initial_b)
    return state


def matched_state(model: nn.Module, twin: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a standard `model` under the names of its `twin`, and name -> reason for those that it has no place for.

    A head more or less changes the names by the base model's prefix; a head of another kind is dropped.
    """
    prefix, wanted = f"{model.base_model_prefix}.", set(twin.state_dict())
    state, dropped = {}, {}
    for name, value in model.state_dict().items():
        match = next((key for key in (name, prefix + name, name.removeprefix(prefix)) if key in wanted), None)
        if match is not None:
            state[match] = value
        elif name.endswith("bias") and not twin.config.use_bias:
            dropped[name] = "bias"
        else:
            dropped[name] = "a part that the B-cos model does not have"
    return state, dropped
