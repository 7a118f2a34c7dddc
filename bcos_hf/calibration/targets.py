"""What a refitted layer is to give: what the standard layer, with its bias and the norms around it, makes of the twin's
own input.

Nothing of a standard model's forward pass is used: its layers alone are, each on what comes to its twin.
"""

from dataclasses import dataclass, field

from torch import Tensor, nn

from bcos_hf.models.bcos_head import BcosLogits
from bcos_hf.models.bcos_inputs import BcosPatchStem, BcosStem
from bcos_hf.models.bcos_precision import wide

from .layouts import LinearLayout, PatchStemLayout
from .norm_biases import gain_for, wanted_sum
from .objectives import Objective
from .plan import NORMS, Step


@dataclass
class Brought:
    """What one batch brings to a layer.

    Attributes:
        args, kwargs: of the layer's call. output: of the last module before the end of the step. arrived: what came to
            the end, the output with what was added to it; None of a step without an end. seen: inputs of the norms that
            the step reads or writes to, and outputs of activations, by module name.
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
        config: of the twin. layout: how the layer reads and writes.
        pixels: (mean, std) that the standard model's images are normalized with, each [C]; needed where the twin takes
            images in [0, 1].
    """

    def __init__(
        self,
        step: Step,
        layout: LinearLayout,
        standard: dict[str, nn.Module],
        twin: dict[str, nn.Module],
        config,
        pixels: tuple | None,
    ) -> None:
        self.step, self.layout, self.standard, self.twin, self.config, self.pixels = (
            step,
            layout,
            standard,
            twin,
            config,
            pixels,
        )
        self.layer = standard[step.name]
        self.end = None if step.end is None else twin[step.end]
        self.norm = standard[step.end] if isinstance(standard.get(step.end), NORMS) else None

    def of(self, brought: Brought) -> Tensor:
        """What the standard layer and the batch norm behind it give, in the shape of `brought.output`."""
        target = self._layer(self.layer, self.standard_input(brought))
        if self.step.bias_to is not None and self.twin[self.step.name].bias is None and self.layer.bias is not None:
            target = target - self.layer.bias.view(-1, 1, 1)
        for name in self.step.between:
            target = self.standard[name](target)
            if (
                self.twin[name].bias is not None
            ):  # the twin adds its own, which is what the norm's mean and bias come to
                target = target - self.twin[name].bias.view(-1, 1, 1)
        bias = None if self.step.adds is None else self._lost_bias(self.step.adds)
        return target if bias is None else target + bias

    def factors(self, brought: Brought, gate: Step | None) -> tuple[Tensor, Tensor] | None:
        """In a gated MLP, what the output is multiplied with: in the twin, and in the standard model; None
        elsewhere."""
        if self.step.times is None:
            return None
        x = self.standard_input(brought)
        if gate is None:
            factor = self._layer(self.standard[self.step.times], x)
            return factor, factor
        return brought.seen[self.step.times], gate.activation(self._layer(self.standard[gate.name], x))

    def standard_input(self, brought: Brought) -> Tensor:
        """What the standard layer would get of the same input: the picture as it takes it, or with the bias of the norm
        in front of it."""
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
        if self.step.is_chain(self.standard):
            value = brought.seen[self.step.reads[0]]
            for name in self.step.reads:
                value = self.standard[name](value)
            return _in_the_shape_of(x, value)
        bias = self._lost_bias(self.step.reads[0])
        if bias is None:
            return x
        return x + (bias.view(-1, 1, 1) if isinstance(self.layer, nn.Conv2d) else bias.repeat(x.shape[-1] // len(bias)))

    def _lost_bias(self, norm: str) -> Tensor | None:
        """The bias of a standard norm that its twin does not have."""
        bias = getattr(self.standard[norm], "bias", None)
        return bias if getattr(self.twin[norm], "bias", None) is None else None

    def _layer(self, layer: nn.Module, x: Tensor) -> Tensor:
        return self.layout.standard_output(layer, x)

    def objective(self, rows: dict[str, Tensor]) -> tuple[Objective, Tensor | None]:
        """What the fit minimizes; and, where a norm that has lost its bias comes after it, the gain that this norm is
        to have, [groups, 1, O]."""
        target, added, activation = rows["target"], rows.get("added"), self.step.activation
        weight = None
        if "stream" in rows:
            weight = rows["stream"].reciprocal()
        if self.norm is not None:
            weight = rows["deviation"].square().mean(-1, keepdim=True).reciprocal()
            weight, gain = weight / weight.mean(), None
            if self.norm_lost_its_bias():
                target, gain = self.with_norm_bias(rows)
            return Objective(target, target, weight), gain
        weight = None if weight is None else weight / weight.mean()
        if isinstance(self.twin[self.step.name], BcosLogits):
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

        With a logit bias every logit is evidence for its own class; what is common to all, which no softmax sees, is
        taken off.
        """
        layer = self.twin[self.step.name]
        if layer.logit_bias is not None and not self.config.keep_biases and target.shape[-1] > 1:
            target = target - target.mean(-1, keepdim=True)
        return target if layer.logit_temperature is None else target * layer.logit_temperature

    def with_norm_bias(self, rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What the layer is to give so that the norm behind it needs no bias, and the gain that the norm is to have for
        that."""
        train = ~rows["held_out"]
        gain = gain_for(rows["z"][:, train], rows["normed"][:, train], self.layout.channels(wide(self.norm.weight)).mT)
        return wanted_sum(rows["total"], rows["z"], rows["deviation"], rows["normed"], gain) - rows["added"], gain

    def norm_lost_its_bias(self) -> bool:
        """Whether the norm behind the layer had a bias, which the twin's has not."""
        return self.norm.bias is not None and self.end.bias is None


def _in_the_shape_of(x: Tensor, maps: Tensor) -> Tensor:
    """Maps [N, C, H, W] as what a head gets: of each position [N, H W, C], or their mean [N, C]; as they are where shapes agree."""
    if x.shape == maps.shape:
        return maps
    return maps.flatten(2).transpose(1, 2) if x.dim() == 3 else maps.mean((2, 3))
