"""Which layers of a twin are refitted, and to what: the family's table of `Fit`s, looked up for a model and checked."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from transformers.activations import ACT2FN

from bcos_hf.models.bcos_attention import QueryKey, QueryKeyValue
from bcos_hf.models.bcos_batch_norm import UncenteredBatchNorm2d
from bcos_hf.models.bcos_conversion import LINEAR
from bcos_hf.models.bcos_fits import Fit
from bcos_hf.models.bcos_layers import Bcos
from bcos_hf.models.modeling_bcos_siglip_vision import BcosMultiheadAttention


FITTED = (Bcos, QueryKey, QueryKeyValue, BcosMultiheadAttention)
NORMS = (nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Step:
    """A layer that is refitted. Names are those of modules, in full.

    Attributes:
        name: of the layer. reads: norms and activations in front of it, in order. between: what its output goes through
            before `end`: a batch norm.
        end: the activation or the norm over channels in front of which the fit is measured; None: at the output of the
            last of `between`, or of the layer.
        activation: what follows in the standard model, None where nothing does. times, stream, adds, bias_to: as in `Fit`.
        scaled: whether its exponent is that of the configuration; not of projections that stay linear.
    """

    name: str
    reads: tuple[str, ...] = ()
    between: tuple[str, ...] = ()
    end: str | None = None
    activation: nn.Module | None = None
    times: str | None = None
    stream: str | None = None
    adds: str | None = None
    bias_to: str | None = None
    scaled: bool = True

    def is_chain(self, standards: dict[str, nn.Module]) -> bool:
        """Whether what the layer reads is to be computed anew, not only given back a bias: a batch norm, or several modules."""
        return len(self.reads) > 1 or any(isinstance(standards[name], nn.BatchNorm2d) for name in self.reads)


@dataclass(frozen=True)
class Plan:
    """What a refit does.

    Attributes:
        steps: by the layers' names. left: name -> why that layer stays as it is. standards: the standard model's
            modules by the twin's names.
        needed: step -> modules whose input or output it needs besides. inputs, outputs: modules of which one or the
            other has to be kept.
    """

    steps: dict[str, Step]
    left: dict[str, str]
    standards: dict[str, nn.Module]
    needed: dict[str, set[str]]
    inputs: set[str]
    outputs: set[str]


def plan_of(twin: nn.Module, standard: nn.Module) -> Plan:
    """What a refit of `twin` does; `standard` is the model it was made from.

    Raises:
        ValueError: a model that cannot be refitted (unit rows, MaxOut, another batch norm than the uncentered one), or
        a layer that no `Fit` speaks of.
    """
    _check(twin)
    modules = dict(twin.named_modules())
    standards = _by_the_twins_names(twin, standard)
    found: dict[str, tuple[Fit, re.Match]] = {}
    new = {name.rpartition(".")[0] for name in twin.conversion_report.new}
    left = dict.fromkeys(new & modules.keys(), "new, with random weights; train it first")
    fits = twin._roles.fits
    for name, module in modules.items():
        if name not in standards and name not in left and isinstance(module, FITTED):
            raise ValueError(
                f"{name}: expected the standard model that the twin was made from; {type(standard).__name__} has no such layer."
            )
        fitted = isinstance(module, FITTED)
        if not fitted or name in left or not twin._roles.converts(name):
            continue
        matches = [(fit, match) for fit in fits if not fit.last and (match := re.fullmatch(fit.layer, name))]
        if matches:
            found[name] = matches[0]
        else:
            raise ValueError(
                f"{name}: no rule says what this {type(module).__name__} is fitted to; the family's `roles.fits` has rules for its layers."
            )
    read = {match.expand(read) for fit, match in found.values() for read in fit.reads}
    for fit in (fit for fit in fits if fit.last):
        matches = [(name, match) for name in found if (match := re.fullmatch(fit.layer, name))]
        if matches and not {matches[-1][1].expand(name) for name in fit.then} & read:
            found[matches[-1][0]] = (fit, matches[-1][1])
    left |= {name: fit.left for name, (fit, _) in found.items() if fit.left}
    steps = {
        name: _step(name, fit, match, modules, standards, twin._roles.bcos)
        for name, (fit, match) in found.items()
        if not fit.left
    }
    needed: dict[str, set[str]] = {name: set() for name in steps}
    inputs, outputs = set(), set()
    for name, step in steps.items():
        chain = list(step.reads[:1]) if step.is_chain(standards) else []
        kept = {*chain, *filter(None, [step.stream])}
        made = {step.times} - {None} - steps.keys()
        needed[name], inputs, outputs = kept | made, inputs | kept, outputs | made
    return Plan(steps, left, standards, needed, inputs, outputs)


def _by_the_twins_names(twin: nn.Module, standard: nn.Module) -> dict[str, nn.Module]:
    """The modules of the standard model; a head more or less changes names by the base model's prefix."""
    theirs, prefix = dict(standard.named_modules()), f"{standard.base_model_prefix}."
    named = {}
    for name in dict(twin.named_modules()):
        match = next((other for other in (name, prefix + name, name.removeprefix(prefix)) if other in theirs), None)
        if match is not None:
            named[name] = theirs[match]
    return named


def _check(twin: nn.Module) -> None:
    config = twin.config
    if config.weight_norm != "none":
        raise ValueError(
            f"weight_norm: a refit expects 'none', got {config.weight_norm!r}. Rows of unit length have no scale that could be fitted; convert with "
            "weight_norm='none', or without calibration."
        )
    if config.max_out > 1:
        raise ValueError(
            f"max_out: a refit expects 1, got {config.max_out}. Which of several rows responds has no least-squares solution."
        )
    for name, module in twin.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and type(module) is not UncenteredBatchNorm2d:
            raise ValueError(
                f"{name}: a refit expects batch_norm='uncentered' and norm_layer='layer_norm', got a {type(module).__name__}."
            )
        if type(module).__name__ == "PositionNorm2d":
            raise ValueError(
                f"{name}: a refit expects batch_norm='uncentered', got 'position', whose norm the standard model does not have."
            )


def _step(
    name: str,
    fit: Fit,
    match: re.Match,
    modules: dict[str, nn.Module],
    standards: dict[str, nn.Module],
    bcos: Iterable[str],
) -> Step:
    named = {
        "reads": tuple(match.expand(text) for text in fit.reads),
        "then": tuple(match.expand(text) for text in fit.then),
        **{key: getattr(fit, key) and match.expand(getattr(fit, key)) for key in ("times", "stream", "adds", "bias_to")},
    }
    absent = [
        other
        for other in (*named["reads"], *named["then"], *filter(None, (named["times"], named["stream"], named["adds"])))
        if other not in modules
    ]
    if absent:
        raise ValueError(f"{name}: its rule names {absent[0]!r}, which the model does not have.")
    between, end, activation = [], None, ACT2FN[fit.function] if fit.function else None
    for other in named.pop("then"):
        standard = standards.get(other)
        if isinstance(standard, nn.BatchNorm2d):
            between.append(other)
        elif isinstance(standard, NORMS):
            end = other
            break
        elif not isinstance(standard, nn.Identity):
            end, activation = other, activation or standard
            break
    scaled = isinstance(modules[name], Bcos) and (name.rpartition(".")[2] not in LINEAR or name in bcos)
    return Step(name, between=tuple(between), end=end, activation=activation, scaled=scaled, **named)
