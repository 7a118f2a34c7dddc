"""The refit of an embedding in front of a norm: the norm's bias as a constant in every row of the table."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .layers import LayerRefit
from .report import LayerFit
from .targets import Brought


class ConstantRefit(LayerRefit):
    """An embedding, such as that of the positions, whose output is added to others before a norm that has lost its
    bias."""

    def fit(self, items: list[Brought], exponents: Sequence[float] = ()) -> tuple[LayerFit, dict[float, float]]:
        """Fit the constant to what the batches bring."""
        rows = self._rows(items)
        train, held = ~rows["held_out"], int(rows["held_out"].sum())
        measured = rows["held_out"] if held else train
        target, gain = (
            self.targets.with_norm_bias(rows) if self.targets.norm_lost_its_bias() else (rows["target"], None)
        )
        weight = rows["deviation"].square().mean(-1, keepdim=True).reciprocal()
        lacking = target - rows["target"]
        constant = (weight * lacking)[:, train].sum(1, keepdim=True) / weight[:, train].sum(1, keepdim=True)
        before, after, spread = (
            (weight * values.square())[:, measured].sum()
            for values in (lacking, lacking - constant, target - target[:, measured].mean(1, keepdim=True))
        )
        better = bool(after < before)
        constant = constant if better else torch.zeros_like(constant)
        self.layer.weight.add_(constant.flatten().to(self.layer.weight))
        if gain is not None:
            self._write_norm_gain(gain, rows["total"] + constant, rows)
        r2 = [
            (1 - value / spread.clamp_min(torch.finfo(spread.dtype).tiny)).item()
            for value in (before, torch.minimum(before, after))
        ]
        chosen = {"ridge": 0.0 if better else None, "towards": "pretrained" if better else ""}
        return LayerFit(
            self.step.name, 1.0, 1, len(train) - held, held, r2_before=r2[0], r2=r2[1], constant=1.0, **chosen
        ), {}

    def _shape(self) -> tuple[int, int, int]:
        return 1, 1, 1

    def _output(self, item: Brought) -> Tensor:
        return item.arrived

    def _input_rows(self, item: Brought, positions: Tensor) -> dict[str, Tensor]:
        return {}
