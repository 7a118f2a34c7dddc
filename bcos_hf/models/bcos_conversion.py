"""In-place conversion: which standard layer becomes which B-cos layer, as data, and the report of what was done.

Structure only: classes are exchanged and biases removed, no number is computed, so that it works on the meta device and under sharding. Numbers that a
conversion does compute are in `bcos_state`.

Source: Arya et al., NeurIPS 2024 (arXiv 2411.00715) section 3; Wang et al., TMLR 2025 (arXiv 2502.12992) section 3.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from torch import nn
from transformers.pytorch_utils import Conv1D

from .bcos_activations import GATES, LINEAR_ACTIVATIONS, gated
from .bcos_attention_names import LINEAR, LINEARS, QUERY_KEY, check_attentions
from .bcos_batch_norm import BATCH_NORMS
from .bcos_blur import BLURRED_POOLS
from .bcos_dynamic import Dynamic
from .bcos_fits import Fit
from .bcos_head import BcosLogits
from .bcos_inputs import as_stem_
from .bcos_layers import Bcos, BcosConv1D, BcosConv2d, BcosLinear
from .bcos_norms import BcosGroupNorm, BcosLayerNorm, BcosRMSNorm


BCOS = dict(zip(LINEARS, (BcosLinear, BcosConv2d, BcosConv1D), strict=True))
NORMS = {nn.LayerNorm: BcosLayerNorm, nn.GroupNorm: BcosGroupNorm, nn.RMSNorm: BcosRMSNorm}
KEPT = {
    nn.Embedding: "makes the input that is explained",
    nn.Dropout: "does nothing in evaluation",
    nn.CrossEntropyLoss: "a loss, not part of the prediction",
    nn.MaxPool2d: "its choice of a position is a dynamic factor",
    **dict.fromkeys((nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.ZeroPad3d), "linear"),
    **dict.fromkeys((nn.ModuleList, nn.Sequential, nn.ModuleDict), "empty"),
    **dict.fromkeys(LINEAR_ACTIVATIONS, "piecewise linear, its derivative is its gate"),
}
# one class a model in transformers, known by how their names end
KEPT_NAMES = {"LayerScale": "linear", "DropPath": "does nothing in evaluation", "RotaryEmbedding": "turns queries and keys alone"}


@dataclass
class ConversionReport:
    """What a conversion did. `str()` is a table, `to_dict()` goes into a JSON file.

    Attributes:
        converted: (module name, class before, class after, note) of each exchanged layer.
        kept: (module name, class, reason) of each leaf that stayed.
        dropped: parameter name -> reason, for every tensor of the source that the B-cos model does not have.
        new: names of the tensors that the source did not have (a fresh head), initialised at random.
        fits: what a refit made of each layer, in order (see `bcos_hf.calibration.LayerFit`); empty where there was none.
        calibration: of that refit: samples, rounds, seconds, and the name of their source where it is known.
        weights: fingerprint of the weights as they were converted, by which a later look tells whether they were trained since; None where it was not taken.
    """

    converted: list[tuple[str, str, str, str]] = field(default_factory=list)
    kept: list[tuple[str, str, str]] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    fits: list[dict] = field(default_factory=list)
    calibration: dict | None = None
    weights: str | None = None

    def to_dict(self) -> dict:
        """The report as plain lists and dicts."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{name}: {before} -> {after} ({note})" for name, before, after, note in self.converted]
        lines += [f"{name}: {cls} kept ({reason})" for name, cls, reason in self.kept]
        lines += [f"{name}: dropped ({reason})" for name, reason in self.dropped.items()]
        lines += [f"{name}: new, initialised at random" for name in self.new]
        return "\n".join([*lines, *self._fit_lines()])

    def _fit_lines(self) -> list[str]:
        """A table of the fits, a line each under a line of heads; [] where there are none."""
        if not self.fits:
            return []
        wide = max(len(fit["name"]) for fit in self.fits)
        head = f"{'refitted layer':<{wide}}     B     rows  held out  R^2 before   after  constant in its input"
        form = "{name:<{wide}}  {b:>4.3g}  {rows:>7}  {held_out:>8}  {r2_before:>10.3f}  {r2:>6.3f}  {constant:>8.2f}"
        return [head, *(form.format(wide=wide, **fit) for fit in self.fits)]

    def summary(self) -> str:
        """In a line or two: how many layers were converted and, where they were refitted, how well."""
        counts = ", ".join(f"{len(getattr(self, name))} {name}" for name in ("converted", "kept", "dropped", "new"))
        if not self.fits:
            return counts
        after, before = ([fit[key] for fit in self.fits] for key in ("r2", "r2_before"))
        worst, lowest = min(self.fits, key=lambda fit: fit["r2"]), min(self.fits, key=lambda fit: fit["r2_before"])
        inputs = f" on {self.calibration['samples']} inputs in {self.calibration['seconds']:.1f} s" if self.calibration else ""
        means = [sum(values) / len(values) for values in (before, after)]
        return (
            f"{counts}\n{len(self.fits)} layers refitted{inputs}: R^2 on held-out rows, mean, {means[0]:.3f} before, {means[1]:.3f} after; "
            f"worst {lowest['r2_before']:.3f} before ({lowest['name']}), {worst['r2']:.3f} after ({worst['name']})"
        )


@dataclass(frozen=True)
class Roles:
    """Which modules of a model play which part, by name.

    Attributes:
        logits: make the class logits. head_activations: what `config.head_activation` is about.
        stems: names of the first layer, which reads the encoded picture; the first of them that a model has.
        parts: names of the submodules that are converted; () converts all.
        bcos: names of layers that become B-cos layers, whatever else their name says.
        fits: what each layer is fitted to when a model is refitted; the first whose pattern is a layer's name counts.
        layer: a pattern whose first group is the number of the hidden layer that a name lies in, counted from `first_layer`.
    """

    logits: Sequence[str] = ()
    head_activations: Iterable[str] = ()
    stems: Iterable[str] = ()
    parts: Iterable[str] = ()
    bcos: Iterable[str] = ()
    fits: Sequence[Fit] = ()
    layer: str = r"\.(\d+)\."
    first_layer: int = 0

    def converts(self, name: str) -> bool:
        """Whether the module of that name lies in one of `parts`."""
        return not self.parts or any(name == part or name.startswith(f"{part}.") for part in self.parts)

    def layer_of(self, name: str) -> int | None:
        """The hidden layer, counted from 0, that the module of that name lies in."""
        number = re.search(self.layer, name)
        return int(number[1]) - self.first_layer if number else None


def convert_(model: nn.Module, config, roles: Roles) -> ConversionReport:
    """Turn the standard layers of `model` into B-cos layers, in place.

    Args:
        model: a model of standard layers; parameter names stay.
        config: has the fields of `BcosConfigMixin`.

    Raises:
        ValueError: a leaf module that is in no table, or a linear layer of an attention that may be anything; converting around it would make
            explanations silently incomplete.
    """
    report, modules = ConversionReport(), dict(model.named_modules())
    stem = next((name for name in roles.stems if name in modules), None)
    check_attentions(modules, roles.converts, {*roles.bcos, *roles.logits})
    for name, module in modules.items():
        if not roles.converts(name):
            continue
        before, note = type(module).__name__, ""
        if type(module) in BCOS:
            note = _convert_linear_(name, module, config, roles, name == stem)
        elif not isinstance(module, Dynamic) and next(module.children(), None) is None:
            in_gated_mlp = f"{name.rpartition('.')[0]}.gate_proj" in modules
            note = _convert_leaf_(name, module, config, roles, in_gated_mlp)
            if not note:
                report.kept.append((name, before, _reason_to_keep(name, module)))
        if note:
            report.converted.append((name, before, type(module).__name__, note))
        for bias in ("bias", "in_proj_bias"):
            if not config.keep_biases and isinstance(getattr(module, bias, None), nn.Parameter):
                setattr(module, bias, None)
    return report


def _convert_leaf_(name: str, module: nn.Module, config, roles: Roles, in_gated_mlp: bool) -> str:
    """Convert what is no linear layer; says what it became, '' where it stays."""
    kind = type(module)
    if kind in NORMS:
        module.__class__ = NORMS[kind]
        return "deviation is a dynamic factor"
    if kind is nn.BatchNorm2d:
        return BATCH_NORMS[config.batch_norm](module)
    if kind is nn.MaxPool2d and config.max_pool == "average":
        module.__class__, module.count_include_pad, module.divisor_override = nn.AvgPool2d, True, None
        return f"same window{_blur_pool_(module, config)}"
    if kind in BLURRED_POOLS:
        return _blur_pool_(module, config)
    if kind in GATES or kind in LINEAR_ACTIVATIONS:
        is_head = name in roles.head_activations
        if kind is not nn.Identity and (config.head_activation if is_head else config.inner_activation) == "identity":
            module.__class__ = nn.Identity
            return f"{'head' if is_head else 'hidden'} activation dropped"
        if kind in GATES:
            gated(module, in_gated_mlp)
            return "the whole of it is a dynamic factor" if in_gated_mlp else "a gate"
    return ""


def _steps_over(module: nn.Module) -> bool:
    """Whether a stride of 2 gives some positions more weight than others."""
    kernel, stride = (value if isinstance(value, tuple) else (value, value) for value in (module.kernel_size, module.stride))
    return stride == (2, 2) and kernel != stride


def _blur_pool_(module: nn.Module, config) -> str:
    if not (getattr(config, "stride_blur", False) and _steps_over(module)):
        return ""
    module.__class__ = BLURRED_POOLS[type(module)]
    return ", blurred before its stride"


def _reason_to_keep(name: str, module: nn.Module) -> str:
    kind = type(module).__name__
    reason = KEPT.get(type(module)) or next((reason for end, reason in KEPT_NAMES.items() if kind.endswith(end)), None)
    if reason is None:
        known = sorted({*(cls.__name__ for cls in (*BCOS, *NORMS, *GATES, *KEPT, nn.BatchNorm2d)), *(f"*{end}" for end in KEPT_NAMES)})
        raise ValueError(f"{name}: no rule for a {kind}, so explanations could not be exact. There are rules for {', '.join(known)}.")
    return reason


def _convert_linear_(name: str, module: nn.Module, config, roles: Roles, is_stem: bool) -> str:
    leaf = name.rpartition(".")[2]
    if leaf in QUERY_KEY:
        module.__class__ = QUERY_KEY[leaf]
        return "linear; queries and keys are constant in explanations"
    module.__class__ = BcosLogits if name in roles.logits else BCOS[type(module)]
    if leaf in LINEAR and name not in roles.bcos:
        module.set_bcos(b=1.0)
        return f"B = 1, {LINEAR[leaf]}"
    if is_stem:
        as_stem_(module, config.input_encoding)
    elif isinstance(module, nn.Conv2d) and getattr(config, "stride_blur", False):
        module.blur = _steps_over(module)
    b = config.b_of(roles.layer_of(name))
    module.set_bcos(b, config.weight_norm, config.max_out, config.learnable_b, config.bcos_eps)
    if config.max_out > 1:
        _widen_(module, config.max_out)
    if name in roles.logits:
        module.logit_bias, module.logit_temperature = config.logit_bias_value, config.logit_temperature
    learnable, blurred = ", learnable" if config.learnable_b else "", ", blurred" if getattr(module, "blur", False) else ""
    return f"B = {b:g}{learnable}, {config.weight_norm} weight norm{blurred}"


def _widen_(module: Bcos, max_out: int) -> None:
    """Room for `max_out` rows per unit; freshly initialised unless a state is loaded."""
    rows = 1 if isinstance(module, Conv1D) else 0
    for name, dim in (("weight", rows), ("bias", 0)):
        parameter = getattr(module, name)
        if parameter is not None:
            setattr(module, name, nn.Parameter(parameter.detach().repeat_interleave(max_out, dim)))
    name = "out_channels" if isinstance(module, nn.Conv2d) else "nf" if isinstance(module, Conv1D) else "out_features"
    setattr(module, name, max_out * getattr(module, name))
    module._is_hf_initialized = False
