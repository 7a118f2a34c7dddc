"""The refit of one layer: the rows that the batches bring, the fit, and the numbers it is written down in."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from bcos_hf.models.bcos_head import BcosLogits
from bcos_hf.models.bcos_inputs import BcosPatchStem, BcosStem
from bcos_hf.models.bcos_layers import Bcos
from bcos_hf.models.bcos_precision import wide

from .layouts import add_inverse_weights, layout_of
from .objectives import Objective
from .plan import NORMS, Step
from .solving import Fitted, Rows, fit_rows
from .targets import Brought, Targets, standardized


FEWEST_ROWS = 8192  # taken of a layer with few inputs
LEAST_GAIN = 0.3  # of a norm's gain, in parts of the standard norm's


@dataclass(frozen=True)
class LayerFit:
    """What became of one layer.

    Attributes:
        name: of the layer. b: its exponent; 1 of a linear layer. columns: its inputs. rows, held_out: how many were fitted, and how many chose and measured.
        r2_before, r2: part of the variance of the target that the layer meets on held-out rows, as it was converted and as it was fitted.
        constant: R^2 of the best prediction of 1 from the layer's input: how much of a constant it holds.
        ridge: the one that was chosen, None where the weights stay as they were. towards: "pretrained" or "zero", what it shrinks to.
    """

    name: str
    b: float
    columns: int
    rows: int
    held_out: int
    r2_before: float
    r2: float
    constant: float
    ridge: float | None
    towards: str

    def to_dict(self) -> dict:
        """Plain numbers and texts."""
        return asdict(self)


class LayerRefit:
    """A layer that is to be refitted.

    Args:
        step: which, and what stands around it. gate: of the up projection of a gated MLP, the step of its gate. modules, standards: the twin's modules and the
            standard model's, by the twin's names. pixels: as in `refit_`. generator: draws the positions that are taken.
    """

    def __init__(self, step: Step, gate: Step | None, modules: dict, standards: dict, config, pixels, settings, generator: torch.Generator) -> None:
        self.step, self.gate, self.config, self.settings, self.generator = step, gate, config, settings, generator
        self.layer, self.standard = modules[step.name], standards[step.name]
        self.between = [modules[name] for name in step.between]
        self.end = None if step.end is None else modules[step.end]
        self.norm = standards[step.end] if isinstance(standards.get(step.end), NORMS) else None
        self.layout = layout_of(self.layer, self.standard, config)
        self.targets = Targets(step, self.layout, standards, modules, pixels)
        self.pixels = pixels
        self.positions = None if step.bias_to is None else _position_embeddings(modules, step.bias_to)

    def changed(self) -> list[Tensor]:
        """The tensors that a fit may write to."""
        modules = [self.layer, *self.between, *([self.end] if self.norm is not None else [])]
        own = [tensor for module in modules for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))]
        return own if self.positions is None else [*own, self.positions]

    def fit(self, items: list[Brought], exponents: Sequence[float] = ()) -> tuple[LayerFit, dict[float, float]]:
        """Fit the layer to what the batches bring; and, where its exponent is the configuration's, the R^2 that it would have with each of `exponents`."""
        rows = self._rows(items)
        if isinstance(self.layer, nn.Embedding):
            return self._fit_constant(rows), {}
        measured = {b: self._solve(rows, b)[0].r2 for b in exponents if "n" in rows}
        made = self._fit_weights(rows)
        self._move_bias()
        return made, measured

    def rerun(self, item: Brought):
        """What the batch goes on with: the output of the fitted layer, or what comes to the end of the step; None where the layer is still to be run."""
        if isinstance(self.layer, nn.MultiheadAttention):
            return None
        output = self.layer.forward(*item.args, **item.kwargs)  # not a call, which would run the hooks
        for module in self.between:
            output = module.forward(output)
        return output if item.arrived is None else item.arrived - item.output + output

    @property
    def _b(self) -> float:
        b = getattr(self.layer, "b", 1.0)
        return max(1.0, float(b.detach() if isinstance(b, Tensor) else b))

    def _rows(self, items: list[Brought]) -> dict[str, Tensor]:
        """Rows of everything that the fit needs, and which of them are held out."""
        chosen = self._choose(items)
        parts = [self._rows_of(item, positions) for item, (positions, _) in zip(items, chosen, strict=True)]
        rows = {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}
        rows["held_out"] = torch.cat([held for _, held in chosen])
        for name in ("x", "target"):
            if name in rows and not rows[name].isfinite().all():
                raise ValueError(f"calibration: expected finite values, got some that are not at {self.step.name}. Look for NaN in the inputs.")
        return rows

    def _choose(self, items: list[Brought]) -> list[tuple[Tensor, Tensor]]:
        """The positions that are taken of each batch, and which of them are held out: all those of every so-manyth input."""
        settings, counts = self.settings, []
        for item in items:
            x = self._output_like(item)
            inputs, places = x.shape[0], x[..., 0].numel() // x.shape[0]
            if item.mask is not None and x.dim() == 3 and x.shape[:2] == item.mask.shape:
                valid = item.mask.flatten().bool().nonzero()[:, 0]
            else:
                valid = torch.arange(inputs * places, device=x.device)
            counts.append((inputs, places, valid))
        total, samples = sum(len(valid) for _, _, valid in counts), sum(inputs for inputs, _, _ in counts)
        share = min(1.0, self._most_rows() / max(total, 1))
        chosen, first_input, first_row = [], 0, 0
        for inputs, places, valid in counts:
            if share < 1:
                order = torch.randperm(len(valid), generator=self.generator)[: max(1, round(share * len(valid)))]
                valid = valid[order.sort().values.to(valid.device)]
            number = first_input + valid // places if samples >= 2 * settings.held_out else first_row + torch.arange(len(valid), device=valid.device)
            every = settings.held_out
            held = number % every == every - 1 if every else torch.zeros_like(valid, dtype=torch.bool)
            chosen.append((valid, held))
            first_input, first_row = first_input + inputs, first_row + len(valid)
        held = sum(int(part.sum()) for _, part in chosen)
        taken = sum(len(valid) for valid, _ in chosen)
        if taken - held < 1 or (settings.held_out and held < 1):
            needed = max(2, settings.held_out)
            raise ValueError(f"calibration: expected at least {needed} inputs for {self.step.name}, got {samples}; some hundreds are usual.")
        return chosen

    def _output_like(self, item: Brought) -> Tensor:
        """Something with a place for each position: the output, its channels last."""
        output = self.layout.input_of(item.args) if isinstance(item.output, tuple) else item.output
        if isinstance(self.layer, nn.Embedding):
            output = item.arrived
        elif output.dim() == 4 and isinstance(self.layer, nn.Conv2d):
            output = output.permute(0, 2, 3, 1)
        return output

    def _most_rows(self) -> int:
        if isinstance(self.layer, nn.Embedding):
            return FEWEST_ROWS
        _, outputs, inputs = self.layout.weights(self.layer).shape
        numbers = self.layout.groups * (inputs + 6 * outputs)  # of a row: its inputs, and targets, outputs, errors, slopes
        most = self.settings.memory_mb * 2**20 // (4 * numbers)
        return max(2, min(most, max(FEWEST_ROWS, self.settings.rows_per_column * inputs)))

    def _rows_of(self, item: Brought, positions: Tensor) -> dict[str, Tensor]:
        """What one batch brings, [groups, rows, ...]."""
        target = self.targets.of(item)
        maps = {"target": target}
        if self.step.end is not None:
            maps["added"] = item.arrived - item.output
        if self.norm is not None:
            total = maps["added"] + target
            maps["total"], (maps["z"], maps["deviation"]), maps["normed"] = total, standardized(self.norm, total), self.norm(total)
        if (factors := self.targets.factors(item, self.gate)) is not None:
            maps["factor"], maps["standard_factor"] = factors
        if self.step.stream is not None:
            maps["stream"] = item.seen[self.step.stream].square().mean(-1, keepdim=True)
        rows = {name: wide(self.layout.outputs(value, positions)) for name, value in maps.items()}
        if not isinstance(self.layer, nn.Embedding):
            x = self.layout.seen(self.layout.input_of(item.args))
            rows["x"] = wide(self.layout.rows(x, positions))
            if isinstance(self.layer, Bcos) and self.step.scaled and item.kwargs.get("scaled", True):
                rows["n"] = wide(self.layout.norm(x, positions))
        return rows

    def _fit_weights(self, rows: dict[str, Tensor]) -> LayerFit:
        """Fit the weights, and write them."""
        b = self._b if "n" in rows else 1.0
        fitted, all_rows, norm_gain = self._solve(rows, b)
        if fitted.ridge is not None:
            self._write(fitted.weights, all_rows, b)
        if norm_gain is not None:
            self._write_norm_gain(norm_gain, fitted.weights, rows, all_rows, b)
        held = int(rows["held_out"].sum())
        counts = {"columns": rows["x"].shape[-1], "rows": len(rows["held_out"]) - held, "held_out": held}
        measured = {"r2_before": fitted.r2_before, "r2": fitted.r2, "constant": fitted.constant}
        return LayerFit(self.step.name, b, **counts, **measured, ridge=fitted.ridge, towards=fitted.towards)

    def _solve(self, rows: dict[str, Tensor], b: float) -> tuple[Fitted, Rows, Tensor | None]:
        """The best weights with the exponent b, the rows they were fitted to, and the gain for the norm behind the layer."""
        objective, norm_gain = self._objective(rows)
        x, start, pretrained = rows["x"], self.layout.weights(self.layer), self._pretrained()
        bias, standard_bias = self.layout.bias(self.layer), self.layout.bias(self.standard)
        if bias is not None:  # a column of ones, which the norm does not count
            x = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
            own = torch.zeros_like(pretrained[..., :1]) if standard_bias is None else self.layout.channels(standard_bias)
            start, pretrained = (torch.cat(pair, dim=-1) for pair in ((start, self.layout.channels(bias)), (pretrained, own)))
        start, pretrained = wide(start), wide(pretrained)
        if self.between:
            gain, standard_gain = (self.layout.channels(gain) for gain in self._gains())
            start, pretrained = start * gain.sign() * gain.abs() ** (1 / b), pretrained * standard_gain
        all_rows = Rows(x, rows.get("n"), objective)
        held = rows["held_out"]
        train, held_out = all_rows.take(~held), all_rows.take(held if held.any() else ~held)
        return fit_rows(train, held_out, start, pretrained, b, self.settings.ridges, self.settings.steps), all_rows, norm_gain

    def _gains(self) -> list[Tensor]:
        """What the batch norms behind the layer multiply each channel [C] with, in the twin and in the standard model."""
        gains = []
        for norms in (self.between, [self.targets.standard[name] for name in self.step.between]):
            gain = torch.ones_like(wide(norms[0].running_var))
            for norm in norms:
                gain = gain * (wide(norm.running_var) + norm.eps).rsqrt() * (1.0 if norm.weight is None else wide(norm.weight))
            gains.append(gain)
        return gains

    def _pretrained(self) -> Tensor:
        """The standard layer's weights as those of the twin, [groups, O, D]."""
        layer = self.layer
        if self.pixels is not None and self.config.input_encoding == "add_inverse" and isinstance(layer, BcosStem | BcosPatchStem):
            return add_inverse_weights(self.standard.weight.detach(), *self.pixels).flatten(1)[None]
        return self.layout.weights(self.standard)

    def _objective(self, rows: dict[str, Tensor]) -> tuple[Objective, Tensor | None]:
        """What the fit minimizes; and, where a norm that has lost its bias comes after it, the gain that this norm is to have, [groups, 1, O]."""
        target, added, activation = rows["target"], rows.get("added"), self.step.activation
        weight = None
        if "stream" in rows:
            weight = rows["stream"].reciprocal()
        if self.norm is not None:
            weight = rows["deviation"].square().mean(-1, keepdim=True).reciprocal()
            weight, gain = weight / weight.mean(), None
            if self.norm.bias is not None and self.end.bias is None:
                target, gain = self._with_norm_bias(rows)
            return Objective(target, target, weight), gain
        weight = None if weight is None else weight / weight.mean()
        if isinstance(self.layer, BcosLogits):
            target = self._logits(target)
        if activation is None and "factor" not in rows:
            return Objective(target, target, weight), None
        total = target if added is None else target + added
        goal = total if activation is None else activation(total)
        goal = goal * rows["standard_factor"] if "factor" in rows else goal
        own = self._own_activation()
        if activation is not None and own is None:  # the twin has dropped it, so that its output is what comes after it
            target = goal if added is None else goal - added
        return Objective(target, goal, weight, added if own is not None else None, rows.get("factor"), own), None

    def _own_activation(self):
        """The twin's activation behind the layer, None where it has none."""
        if self.step.activation is None:
            return None
        if self.end is None:  # called as a function
            return self.step.activation if self.config.head_activation == "keep" else None
        return None if isinstance(self.end, nn.Identity) else self.end.forward

    def _logits(self, target: Tensor) -> Tensor:
        """What a head computes before temperature and logit bias.

        With a logit bias every logit is evidence for its own class; what is common to all, which no softmax sees, is taken off.
        """
        layer = self.layer
        if layer.logit_bias is not None and not self.config.use_bias and target.shape[-1] > 1:
            target = target - target.mean(-1, keepdim=True)
        return target if layer.logit_temperature is None else target * layer.logit_temperature

    def _with_norm_bias(self, rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What the layer is to give, so that the norm behind it, without its bias, gives what the standard norm does; and the gain for that."""
        z, normed, train = rows["z"], rows["normed"], ~rows["held_out"]
        own = self.layout.channels(wide(self.norm.weight)).mT
        gain = (z * normed)[:, train].mean(1, keepdim=True) / z.square()[:, train].mean(1, keepdim=True).clamp_min(1e-12)
        least = LEAST_GAIN * own.abs()
        sign = torch.where(gain == 0, own, gain).sign()
        gain = torch.where(gain.abs() < least, least * sign, gain)
        gain = torch.where(gain == 0, 1.0, gain)
        return rows["total"] + rows["deviation"] * (normed / gain - z) - rows["added"], gain

    def _write(self, weights: Tensor, rows: Rows, b: float) -> None:
        """Put the weights, [groups, O, D], into the layer, and their size into the batch norm behind it."""
        if self.between:
            weights = self._into_norm(weights, rows, b)
        if self.layout.bias(self.layer) is not None:
            weights, bias = weights[..., :-1], weights[..., -1]
            self.layout.set_bias(bias)
        self.layout.set_weights(weights)

    def _into_norm(self, weights: Tensor, rows: Rows, b: float) -> Tensor:
        """The weights in the size that the layer had; the batch norm, in evaluation, makes of them what was fitted. Adam's steps keep their relative size."""
        scale = self.layout.weights(self.standard).norm() / weights.norm().clamp_min(torch.finfo(weights.dtype).tiny)
        weights = weights * scale
        output, _ = rows.output(weights, b)
        variance = output.var(1, unbiased=False).flatten()  # of [groups, rows, O]
        first, *others = self.between
        first.running_var.copy_(variance)
        first.weight.copy_(scale**-b * (variance + first.eps).sqrt())
        for norm in others:
            norm.running_var.fill_(1.0 - norm.eps)
            norm.weight.fill_(1.0)
        return weights

    def _write_norm_gain(self, gain: Tensor, weights: Tensor, rows: dict[str, Tensor], all_rows: Rows | None, b: float) -> None:
        """The gain of the norm behind the layer: the least-squares one for what now comes to it."""
        if isinstance(self.norm, nn.LayerNorm) and all_rows is not None:
            total = rows["added"] + all_rows.output(weights, b)[0]
            gain = _least_squares_gain(total, rows)
        self.end.weight.copy_(gain.flatten())

    def _fit_constant(self, rows: dict[str, Tensor]) -> LayerFit:
        """Of an embedding in front of a norm: the constant that the norm's bias comes to, in every row of the table."""
        counts = {"columns": 1, "rows": int((~rows["held_out"]).sum()), "held_out": int(rows["held_out"].sum())}
        target, gain = self._with_norm_bias(rows) if self.norm.bias is not None and self.end.bias is None else (rows["target"], None)
        train = ~rows["held_out"]
        held = rows["held_out"] if rows["held_out"].any() else train
        weight = rows["deviation"].square().mean(-1, keepdim=True).reciprocal()
        lacking = target - rows["target"]
        constant = (weight * lacking)[:, train].sum(1, keepdim=True) / weight[:, train].sum(1, keepdim=True)
        before, after = ((weight * value.square())[:, held].sum() for value in (lacking, lacking - constant))
        spread = (target - target[:, held].mean(1, keepdim=True)).square()
        variance = (weight * spread)[:, held].sum().clamp_min(torch.finfo(weight.dtype).tiny)
        fitted = after < before
        if fitted:
            self.layer.weight.add_(constant.flatten().to(self.layer.weight))
            total = rows["total"] + constant
        else:
            total = rows["total"]
        if gain is not None:
            self.end.weight.copy_(_least_squares_gain(total, rows).flatten())
        r2_before, r2 = (1 - (value / variance).item() for value in (before, torch.minimum(before, after)))
        chosen = {"ridge": 0.0 if fitted else None, "towards": "pretrained" if fitted else ""}
        return LayerFit(self.step.name, 1.0, **counts, r2_before=r2_before, r2=r2, constant=1.0, **chosen)

    def _move_bias(self) -> None:
        """The bias of the patch layer into the position embeddings of the patches, exactly."""
        if self.positions is None or self.layer.bias is not None or self.standard.bias is None:
            return
        embeddings, bias = self.positions, self.standard.bias
        patches = embeddings.shape[-2] - self._special_tokens()
        embeddings[..., embeddings.shape[-2] - patches :, :] += bias.to(embeddings)

    def _special_tokens(self) -> int:
        """How many of the position embeddings are not those of patches: class and distillation tokens."""
        config = getattr(self.config, "vision_config", self.config)
        return self.positions.shape[-2] - (config.image_size // config.patch_size) ** 2


def _position_embeddings(modules: dict[str, nn.Module], name: str) -> Tensor:
    """The table of that name, a parameter or the weight of an embedding."""
    if name in modules:
        return modules[name].weight
    parent, _, own = name.rpartition(".")
    return getattr(modules[parent], own)


def _least_squares_gain(total: Tensor, rows: dict[str, Tensor]) -> Tensor:
    """What brings the standardized `total` nearest to the standard norm's output, a number a channel, [1, 1, C]."""
    z = (total - total.mean(-1, keepdim=True)) / total.var(-1, unbiased=False, keepdim=True).clamp_min(1e-12).sqrt()
    train = ~rows["held_out"]
    return (z * rows["normed"])[:, train].mean(1, keepdim=True) / z.square()[:, train].mean(1, keepdim=True).clamp_min(1e-12)
