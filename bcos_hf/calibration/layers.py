"""The refit of one layer: the rows that the batches bring, the fit, and the numbers it is written down in."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bcos_hf.models.bcos_inputs import BcosPatchStem, BcosStem, add_inverse_weights
from bcos_hf.models.bcos_layers import Bcos
from bcos_hf.models.bcos_precision import wide

from .embeddings import add_to_patches, position_embeddings
from .layouts import layout_of
from .norm_biases import least_squares_gain, standardized_rows
from .plan import Step
from .report import LayerFit
from .sampling import draw_positions, valid_positions
from .solving import Fitted, Rows, fit_rows
from .targets import Brought, Targets, standardized


class LayerRefit:
    """A layer that is to be refitted.

    Args:
        step: which, and what stands around it. gate: of the up projection of a gated MLP, the step of its gate.
            modules, standards: the twin's modules and the standard model's, by the twin's names. pixels: as in
                `refit_`. generator: draws the positions that are taken.
    """

    def __init__(
        self,
        step: Step,
        gate: Step | None,
        modules: dict,
        standards: dict,
        config,
        pixels,
        settings,
        generator: torch.Generator,
    ) -> None:
        self.step, self.gate, self.config, self.settings, self.generator = step, gate, config, settings, generator
        self.layer, self.standard = modules[step.name], standards[step.name]
        self.between = [modules[name] for name in step.between]
        self.end = None if step.end is None else modules[step.end]
        self.layout = layout_of(self.layer, self.standard, config)
        self.targets = Targets(step, self.layout, standards, modules, config, pixels)
        self.norm, self.pixels = self.targets.norm, pixels
        self.positions = None if step.bias_to is None else position_embeddings(modules, step.bias_to)

    def changed(self) -> list[Tensor]:
        """The tensors that a fit may write to."""
        modules = [self.layer, *self.between, *([self.end] if self.norm is not None else [])]
        own = [
            tensor
            for module in modules
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
        ]
        return own if self.positions is None else [*own, self.positions]

    def fit(self, items: list[Brought], exponents: Sequence[float] = ()) -> tuple[LayerFit, dict[float, float]]:
        """Fit the layer to what the batches bring; and, where its exponent is the configuration's, the R^2 that it
        would have with each of `exponents`."""
        rows = self._rows(items)
        measured = {b: self._solve(rows, b)[0].r2 for b in exponents if "n" in rows}
        made = self._fit_weights(rows)
        if self.positions is not None and self.layer.bias is None and self.standard.bias is not None:
            add_to_patches(self.positions, self.standard.bias, self.config)
        return made, measured

    def rerun(self, item: Brought):
        """What the batch goes on with: the output of the fitted layer, or what comes to the end of the step; None where
        the layer is still to be run."""
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
        """Rows of everything that the fit needs, [groups, rows, ...], and which of them are held out, [rows]."""
        outputs = [self._output(item) for item in items]
        inputs = [len(output) for output in outputs]
        places = [output[..., 0].numel() // count for output, count in zip(outputs, inputs, strict=True)]
        valid = [valid_positions(output, item.mask) for output, item in zip(outputs, items, strict=True)]
        most = self.settings.most_rows(*self._shape())
        drawn = draw_positions(valid, inputs, places, most, self.settings, self.generator, self.step.name)
        parts = [self._rows_of(item, positions.taken) for item, positions in zip(items, drawn, strict=True)]
        rows = {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}
        rows["held_out"] = torch.cat([positions.held_out for positions in drawn])
        if not all(rows[name].isfinite().all() for name in ("x", "target") if name in rows):
            raise ValueError(
                f"calibration: expected finite values, got some that are not at {self.step.name}. Look for NaN in the inputs."
            )
        return rows

    def _shape(self) -> tuple[int, int, int]:
        """Groups, outputs and inputs of the layer."""
        return self.layout.weights(self.layer).shape

    def _output(self, item: Brought) -> Tensor:
        """Something with a place for each position: the output, its channels last."""
        if isinstance(self.layer, nn.MultiheadAttention):
            return self.layout.input_of(item.args)
        return item.output.permute(0, 2, 3, 1) if isinstance(self.layer, nn.Conv2d) else item.output

    def _rows_of(self, item: Brought, positions: Tensor) -> dict[str, Tensor]:
        """What one batch brings, [groups, rows, ...]."""
        target = self.targets.of(item)
        maps = {"target": target}
        if self.step.end is not None:
            maps["added"] = item.arrived - item.output
        if self.norm is not None:
            total = maps["added"] + target
            maps["total"], (maps["z"], maps["deviation"]), maps["normed"] = (
                total,
                standardized(self.norm, total),
                self.norm(total),
            )
        if (factors := self.targets.factors(item, self.gate)) is not None:
            maps["factor"], maps["standard_factor"] = factors
        if self.step.stream is not None:
            maps["stream"] = item.seen[self.step.stream].square().mean(-1, keepdim=True)
        rows = {name: wide(self.layout.outputs(value, positions)) for name, value in maps.items()}
        return rows | self._input_rows(item, positions)

    def _input_rows(self, item: Brought, positions: Tensor) -> dict[str, Tensor]:
        """What the layer reads, and the norm by which its cosine is taken."""
        x = self.layout.seen(self.layout.input_of(item.args))
        rows = {"x": wide(self.layout.rows(x, positions))}
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
            total = rows["added"] + all_rows.output(fitted.weights, b)[0]
            self._write_norm_gain(norm_gain, total, rows)
        held = int(rows["held_out"].sum())
        counts = {"columns": rows["x"].shape[-1], "rows": len(rows["held_out"]) - held, "held_out": held}
        measured = {"r2_before": fitted.r2_before, "r2": fitted.r2, "constant": fitted.constant}
        return LayerFit(self.step.name, b, **counts, **measured, ridge=fitted.ridge, towards=fitted.towards)

    def _solve(self, rows: dict[str, Tensor], b: float) -> tuple[Fitted, Rows, Tensor | None]:
        """The best weights with the exponent b, the rows they were fitted to, and the gain for the norm behind the
        layer."""
        objective, norm_gain = self.targets.objective(rows)
        x, start, pretrained = rows["x"], self.layout.weights(self.layer), self._pretrained()
        bias, standard_bias = self.layout.bias(self.layer), self.layout.bias(self.standard)
        if bias is not None:  # a column of ones, which the norm does not count
            x = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
            own = (
                torch.zeros_like(pretrained[..., :1]) if standard_bias is None else self.layout.channels(standard_bias)
            )
            start, pretrained = (
                torch.cat(pair, dim=-1) for pair in ((start, self.layout.channels(bias)), (pretrained, own))
            )
        start, pretrained = wide(start), wide(pretrained)
        if self.between:
            gain, standard_gain = (self.layout.channels(gain) for gain in self._gains())
            start, pretrained = start * gain.sign() * gain.abs() ** (1 / b), pretrained * standard_gain
        all_rows = Rows(x, rows.get("n"), objective)
        held = rows["held_out"]
        train, held_out = all_rows.take(~held), all_rows.take(held if held.any() else ~held)
        return (
            fit_rows(train, held_out, start, pretrained, b, self.settings.ridges, self.settings.steps),
            all_rows,
            norm_gain,
        )

    def _gains(self) -> list[Tensor]:
        """What the batch norms behind the layer multiply each channel [C] with, in the twin and in the standard
        model."""
        gains = []
        for norms in (self.between, [self.targets.standard[name] for name in self.step.between]):
            gain = torch.ones_like(wide(norms[0].running_var))
            for norm in norms:
                gain = (
                    gain
                    * (wide(norm.running_var) + norm.eps).rsqrt()
                    * (1.0 if norm.weight is None else wide(norm.weight))
                )
            gains.append(gain)
        return gains

    def _pretrained(self) -> Tensor:
        """The standard layer's weights as those of the twin, [groups, O, D]."""
        layer = self.layer
        if (
            self.pixels is not None
            and self.config.input_encoding == "add_inverse"
            and isinstance(layer, BcosStem | BcosPatchStem)
        ):
            return add_inverse_weights(self.standard.weight.detach(), *self.pixels).flatten(1)[None]
        return self.layout.weights(self.standard)

    def _write(self, weights: Tensor, rows: Rows, b: float) -> None:
        """Put the weights, [groups, O, D], into the layer, and their size into the batch norm behind it."""
        if self.between:
            weights = self._into_norm(weights, rows, b)
        if self.layout.bias(self.layer) is not None:
            weights, bias = weights[..., :-1], weights[..., -1]
            self.layout.set_bias(bias)
        self.layout.set_weights(weights)

    def _into_norm(self, weights: Tensor, rows: Rows, b: float) -> Tensor:
        """The weights in the size that the layer had; the batch norm, in evaluation, makes of them what was fitted.
        Adam's steps keep their relative size."""
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

    def _write_norm_gain(self, gain: Tensor, total: Tensor, rows: dict[str, Tensor]) -> None:
        """The gain of the norm behind the layer: of a layer norm, the least-squares one for the `total` that now comes
        to it."""
        if isinstance(self.norm, nn.LayerNorm):
            train = ~rows["held_out"]
            gain = least_squares_gain(standardized_rows(total[:, train]), rows["normed"][:, train])
        self.end.weight.copy_(gain.flatten())
