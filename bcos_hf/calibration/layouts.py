"""A layer as a table of rows: what it reads at each position [groups, rows, D], what it gives there [groups, rows, O],
and its weights [groups, O, D].

A least-squares problem knows nothing else of a layer, be it linear, a convolution with groups, or the first layer of a
network, which encodes its input.
Positions are numbers in the flattened output without its channels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from bcos_hf.models.bcos_attention import QueryKeyValue
from bcos_hf.models.bcos_inputs import BcosPatchStem, BcosStem, split_weight


class LinearLayout:
    """Of x [..., D] -> [..., O]."""

    groups = 1

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def input_of(self, args: tuple) -> Tensor:
        """The input among the arguments of a call."""
        return args[0]

    def seen(self, x: Tensor) -> Tensor:
        """What the weights are applied to."""
        return x

    def standard_output(self, layer: nn.Module, x: Tensor) -> Tensor:
        """What a layer of the standard model gives."""
        return layer(x)

    def rows(self, x: Tensor, positions: Tensor) -> Tensor:
        """[1, rows, D] of what `seen` gave."""
        return x.flatten(0, -2)[positions][None]

    def outputs(self, y: Tensor, positions: Tensor) -> Tensor:
        """[groups, rows, O] of an output, or of what has one number a position, [1, rows, 1]."""
        return y.flatten(0, -2)[positions][None]

    def norm(self, x: Tensor, positions: Tensor) -> Tensor | None:
        """The norm that the cosine is taken by, [groups, rows, 1] or [1, rows, 1]; None of a layer without one."""
        made = getattr(self.layer, "_input_norm", None)
        return None if made is None else self.outputs(made(x), positions)[..., :1]

    def weights(self, layer: nn.Module) -> Tensor:
        """[groups, O, D], of the twin's layer or of the standard one."""
        weight = layer.weight.t() if isinstance(layer, Conv1D) else layer.weight
        return weight.detach()[None]

    def channels(self, values: Tensor) -> Tensor:
        """One number a channel [C] as [groups, O, 1]."""
        return values.detach().view(self.groups, -1, 1)

    def bias(self, layer: nn.Module) -> Tensor | None:
        """The bias that is fitted beside the weights, where there is one."""
        return layer.bias

    def set_bias(self, values: Tensor) -> None:
        """Write [groups, O] into the layer's bias."""
        self.layer.bias.copy_(values.flatten())

    def set_weights(self, weights: Tensor) -> None:
        """Write [groups, O, D] into the layer."""
        weight = weights[0].t() if isinstance(self.layer, Conv1D) else weights[0]
        self.layer.weight.copy_(weight)


class ConvolutionLayout(LinearLayout):
    """Of x [N, C, H, W] -> [N, O, H', W']: each position reads a patch, with the zeros of its padding."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer)
        self.groups = layer.groups

    def seen(self, x: Tensor) -> Tensor:
        return self.layer.seen(x)

    def rows(self, x: Tensor, positions: Tensor) -> Tensor:
        layer = self.layer
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
        for dim in (0, 1):
            extent = layer.dilation[dim] * (layer.kernel_size[dim] - 1) + 1
            x = x.unfold(2 + dim, extent, layer.stride[dim])[..., :: layer.dilation[dim]]
        height, width = x.shape[2:4]
        picture, place = positions // (height * width), positions % (height * width)
        patches = x[picture, :, place // width, place % width]  # [rows, C, kernel height, kernel width]
        return patches.reshape(len(positions), self.groups, -1).transpose(0, 1)

    def outputs(self, y: Tensor, positions: Tensor) -> Tensor:
        flat = y.permute(0, 2, 3, 1).flatten(0, 2)[positions]
        groups = self.groups if flat.shape[1] % self.groups == 0 else 1
        return flat.unflatten(1, (groups, -1)).transpose(0, 1)

    def weights(self, layer: nn.Module) -> Tensor:
        return layer.weight.detach().flatten(1).unflatten(0, (self.groups, -1))

    def set_weights(self, weights: Tensor) -> None:
        self.layer.weight.copy_(weights.reshape(self.layer.weight.shape))


class StemLayout(ConvolutionLayout):
    """Of the first convolution, which encodes its picture. Of [z, -z] the fit sees z alone, as the layer does: the
    other half is its mirror image."""

    def seen(self, x: Tensor) -> Tensor:
        return x if self.layer._halves else self.layer.encoding(x)

    def weights(self, layer: nn.Module) -> Tensor:
        weight = layer.weight.detach()
        if layer is self.layer and layer._halves:
            first, second = weight.chunk(2, dim=1)
            weight = first - second
        return weight.flatten(1)[None]

    def set_weights(self, weights: Tensor) -> None:
        shape = list(self.layer.weight.shape)
        if self.layer._halves:
            shape[1] //= 2
            self.layer.weight.copy_(split_weight(weights.view(shape), shape[1]))
        else:
            super().set_weights(weights)


class PatchStemLayout(LinearLayout):
    """Of a first layer whose picture was encoded and cut to patches before it, channels innermost; of [z, -z] the fit
    sees z alone."""

    def __init__(self, layer: BcosPatchStem, channels: int, encoding: str) -> None:
        super().__init__(layer)
        self.image_channels, self.halves = channels, encoding == "normalized"

    def seen(self, x: Tensor) -> Tensor:
        return self.first_half(x) if self.halves else x

    def first_half(self, x: Tensor) -> Tensor:
        """The patches [..., area * C] before they were encoded."""
        return x.unflatten(-1, (-1, 2 * self.image_channels))[..., : self.image_channels].flatten(-2)

    def norm(self, x: Tensor, positions: Tensor) -> Tensor:
        norm = super().norm(x, positions)
        return norm * 2**0.5 if self.halves else norm

    def weights(self, layer: nn.Module) -> Tensor:
        weight = layer.weight.detach()
        if layer is self.layer and self.halves:
            first, second = weight.unflatten(1, (-1, 2, self.image_channels)).unbind(2)
            weight = (first - second).flatten(1)
        return weight[None]

    def set_weights(self, weights: Tensor) -> None:
        self.layer.weight.copy_(split_weight(weights[0], self.image_channels) if self.halves else weights[0])


class QueryKeyValueLayout(LinearLayout):
    """Of queries, keys and values in one projection: the keys' rows stay, as a constant added to all keys changes no
    softmax."""

    def outputs(self, y: Tensor, positions: Tensor) -> Tensor:
        return self._without_keys(super().outputs(y, positions), -1)

    def weights(self, layer: nn.Module) -> Tensor:
        return self._without_keys(super().weights(layer), 1)

    def channels(self, values: Tensor) -> Tensor:
        return self._without_keys(super().channels(values), 1)

    def set_weights(self, weights: Tensor) -> None:
        whole = super().weights(self.layer).clone()
        third = whole.shape[1] // 3
        whole[:, :third], whole[:, 2 * third :] = weights.chunk(2, dim=1)
        super().set_weights(whole)

    def set_bias(self, values: Tensor) -> None:
        third = len(self.layer.bias) // 3
        self.layer.bias[:third], self.layer.bias[2 * third :] = values[0].chunk(2)

    @staticmethod
    def _without_keys(values: Tensor, dim: int) -> Tensor:
        query, _, value = values.chunk(3, dim=dim)
        return torch.cat([query, value], dim=dim)


class PoolingAttentionLayout(LinearLayout):
    """Of the values in nn.MultiheadAttention(probe, x, x). Its one query is a constant, whose bias goes into its weight
    exactly."""

    def __init__(self, layer: nn.MultiheadAttention, standard: nn.MultiheadAttention) -> None:
        super().__init__(layer)
        self.standard, self.probe = standard, None

    def input_of(self, args: tuple) -> Tensor:
        self.probe = args[0][0, 0]
        return args[1]

    def standard_output(self, layer: nn.MultiheadAttention, x: Tensor) -> Tensor:
        kept = self.layer.in_proj_bias is not None  # then the twin adds it
        bias = None if kept or layer.in_proj_bias is None else layer.in_proj_bias.chunk(3)[2]
        return F.linear(x, layer.in_proj_weight.chunk(3)[2], bias)

    def bias(self, layer: nn.MultiheadAttention) -> None:
        return None

    def weights(self, layer: nn.MultiheadAttention) -> Tensor:
        return layer.in_proj_weight.detach().chunk(3)[2][None]

    def set_weights(self, weights: Tensor) -> None:
        query, _, value = self.layer.in_proj_weight.chunk(3)
        value.copy_(weights[0])
        if self.layer.in_proj_bias is None and self.standard.in_proj_bias is not None:
            bias = self.standard.in_proj_bias.chunk(3)[0]
            query.copy_(
                self.standard.in_proj_weight.chunk(3)[0] + torch.outer(bias, self.probe) / self.probe.square().sum()
            )


def layout_of(layer: nn.Module, standard: nn.Module, config) -> LinearLayout:
    """How `layer`, of a twin with `config`, reads and writes; `standard` is the layer it was made from."""
    if isinstance(layer, nn.MultiheadAttention):
        return PoolingAttentionLayout(layer, standard)
    if isinstance(layer, QueryKeyValue):
        return QueryKeyValueLayout(layer)
    if isinstance(layer, BcosStem):
        return StemLayout(layer)
    if isinstance(layer, BcosPatchStem) and config.input_encoding != "none":
        return PatchStemLayout(layer, config.num_channels, config.input_encoding)
    return ConvolutionLayout(layer) if isinstance(layer, nn.Conv2d) else LinearLayout(layer)
