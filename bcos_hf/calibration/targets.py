"""What a refitted layer is to give: what the standard layer, with its bias and the norms around it, makes of the twin's own input.

Nothing of a standard model's forward pass is used: its layers alone are, each on what comes to its twin.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bcos_hf.models.bcos_inputs import BcosPatchStem, BcosStem

from .layouts import LinearLayout, PatchStemLayout
from .plan import Step


@dataclass
class Brought:
    """What one batch brings to a layer.

    Attributes:
        args, kwargs: of the layer's call. output: of the last module before the end of the step. arrived: what came to the end, the output with what was added
            to it; None of a step without an end. seen: inputs of the norms that the step reads or writes to, and outputs of activations, by module name.
        mask: [N, L], which tokens are none; None where all are.
    """

    args: tuple
    kwargs: dict
    output: Tensor
    arrived: Tensor | None = None
    seen: dict[str, Tensor] = field(default_factory=dict)
    mask: Tensor | None = None


def standardized(norm: nn.LayerNorm | nn.GroupNorm, x: Tensor) -> tuple[Tensor, Tensor]:
    """(x - mean) / deviation, and the deviation, as the norm takes them; both in the shape of x."""
    if isinstance(norm, nn.GroupNorm):
        grouped = x.unflatten(1, (norm.num_groups, -1)).flatten(2)
        deviation = (grouped.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt().expand_as(grouped)
        centered = grouped - grouped.mean(-1, keepdim=True)
        return (centered / deviation).view_as(x), deviation.reshape(x.shape)
    dim = 1 if getattr(norm, "data_format", "channels_last") == "channels_first" else -1
    deviation = (x.var(dim, unbiased=False, keepdim=True) + norm.eps).sqrt().expand_as(x)
    return (x - x.mean(dim, keepdim=True)) / deviation, deviation


class Targets:
    """The targets of one step.

    Args:
        standard: name -> module of the standard model. twin: the same of the twin.
        pixels: (mean, std) that the standard model's images are normalized with, each [C]; needed where the twin takes images in [0, 1].
    """

    def __init__(self, step: Step, layout: LinearLayout, standard: dict[str, nn.Module], twin: dict[str, nn.Module], pixels: tuple | None) -> None:
        self.step, self.layout, self.standard, self.twin, self.pixels = step, layout, standard, twin, pixels
        self.layer = standard[step.name]

    def of(self, brought: Brought) -> Tensor:
        """What the standard layer and the batch norm behind it give, in the shape of `brought.output`."""
        if isinstance(self.layer, nn.Embedding):
            return brought.output.expand_as(brought.arrived)
        target = self._layer(self.layer, self.standard_input(brought))
        if self.step.bias_to is not None and self.twin[self.step.name].bias is None and self.layer.bias is not None:
            target = target - self.layer.bias.view(-1, 1, 1)
        for name in self.step.between:
            target = self.standard[name](target)
            if self.twin[name].bias is not None:  # the twin adds its own, which is what the norm's mean and bias come to
                target = target - self.twin[name].bias.view(-1, 1, 1)
        return target

    def factors(self, brought: Brought, gate: Step | None) -> tuple[Tensor, Tensor] | None:
        """In a gated MLP, what the output is multiplied with: in the twin, and in the standard model; None elsewhere."""
        if self.step.times is None:
            return None
        x = self.standard_input(brought)
        if gate is None:
            factor = self._layer(self.standard[self.step.times], x)
            return factor, factor
        return brought.seen[self.step.times], gate.activation(self._layer(self.standard[gate.name], x))

    def standard_input(self, brought: Brought) -> Tensor:
        """What the standard layer would get of the same input: the picture as it takes it, or with the bias of the norm in front of it."""
        x = self.layout.input_of(brought.args)
        layer = self.twin[self.step.name]
        if isinstance(layer, BcosStem) and layer.encoding.kind == "add_inverse":
            mean, std = (value.to(x).view(-1, 1, 1) for value in self.pixels)
            return (x - mean) / std
        if isinstance(layer, BcosPatchStem) and isinstance(self.layout, PatchStemLayout):
            x = self.layout.first_half(x)
            if self.layout.halves:
                return x
            mean, std = (value.to(x).repeat(x.shape[-1] // len(value)) for value in self.pixels)
            return (x - mean) / std
        if not self.step.reads:
            return x
        first = self.step.reads[0]
        if isinstance(self.standard[first], nn.BatchNorm2d):
            value = brought.seen[first]
            for name in self.step.reads:
                value = self.standard[name](value)
            return _in_the_shape_of(x, value)
        bias = getattr(self.standard[first], "bias", None)
        if bias is None or self.twin[first].bias is not None:
            return x
        if isinstance(self.layer, nn.Conv2d):
            return x + bias.view(-1, 1, 1)
        return x + bias.repeat(x.shape[-1] // len(bias))

    def _layer(self, layer: nn.Module, x: Tensor) -> Tensor:
        return self.layout.standard_output(layer, x)


def _in_the_shape_of(x: Tensor, maps: Tensor) -> Tensor:
    """Maps [N, C, H, W] as what a head gets: as they are, of each position [N, H W, C], or their mean [N, C]."""
    if x.dim() == 4:
        return maps
    return maps.flatten(2).transpose(1, 2) if x.dim() == 3 else maps.mean((2, 3))

