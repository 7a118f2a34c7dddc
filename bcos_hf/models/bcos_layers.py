"""B-cos layers: |cos(x, w)|^(B-1) * (w . x), as subclasses of the standard layers, so that parameter names stay.

With lin = w . x and n = sqrt(|x|^2 + eps^2) the layer computes, as published,

    y = lin * (|lin| / n + 1e-6)^(B-1)        B not in {1, 2}
    y = lin * |lin| / n                       B = 2
    y = lin                                   B = 1

The eps is 1e-3 in convolutions and in B-cos LM, 1e-12 in the linear layers of the vision repositories. `weight_norm="unit"` divides lin by |w|;
with "none" (B-cosification) the factor is |w| |cos| and a pretrained weight is used as it is.

Sources: Boehle et al., CVPR 2022 (arXiv 2205.10268) eq. 3; Arya et al., NeurIPS 2024 (arXiv 2411.00715) section 3; Wang et al., TMLR 2025
(arXiv 2502.12992) section 3.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from .bcos_blur import binomial_blur
from .bcos_dynamic import Dynamic
from .bcos_precision import wide_dtype
from .bcos_scaling import bcos_scaling, cosine_factor, sum_of_squares
from .bcos_sparse_rows import linear_by_rows


WEIGHT_NORMS = ("none", "unit")


def check_b(b: float) -> float:
    """`b` as a float; raises a ValueError unless it is a finite number of at least 1."""
    if isinstance(b, bool) or not isinstance(b, int | float) or not math.isfinite(b) or b < 1:
        raise ValueError(f"b: expected a finite number >= 1 (1 is the linear layer, 1.5 and 2 are the published choices), got {b!r}.")
    return float(b)


class Bcos(Dynamic):
    """What all B-cos layers share. A subclass gives `_linear`, `_input_norm` and where its output channels are.

    Attributes:
        b: the exponent B, a float, or a scalar parameter where B is learned (values below 1 act as 1).
        weight_norm: "none" or "unit" (rows of length 1).
        max_out: the unit's response is the largest of `max_out` rows (rows o*M .. o*M+M-1 belong to unit o).
        eps: added to the input norm, sqrt(|x|^2 + eps^2).
    """

    b: float | nn.Parameter
    weight_norm = "none"
    max_out = 1
    eps = 1e-3
    _channel_dim = -1

    def set_bcos(self, b: float = 2.0, weight_norm: str = "none", max_out: int = 1, learnable_b: bool = False, eps: float | None = None) -> None:
        """Set the B-cos attributes of a layer, new or just converted; the weights stay untouched."""
        if weight_norm not in WEIGHT_NORMS:
            raise ValueError(f"weight_norm: expected one of {WEIGHT_NORMS}, got {weight_norm!r}.")
        if max_out < 1:
            raise ValueError(f"max_out: expected a whole number >= 1, got {max_out!r}.")
        self.initial_b = check_b(b)
        self.b = nn.Parameter(torch.tensor(self.initial_b, device=self.weight.device)) if learnable_b else self.initial_b
        self.weight_norm, self.max_out, self.eps = weight_norm, max_out, self.eps if eps is None else eps

    def _linear(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _input_norm(self, x: Tensor) -> Tensor:
        """sqrt(|x|^2 + eps^2) of what each output sees, in float32 at least, broadcastable to the output."""
        raise NotImplementedError

    def _row_norm(self) -> Tensor | None:
        """|w| of each row, shaped to broadcast over the output; None where rows are used as they are."""
        if self.weight_norm == "none":
            return None
        weight = self.weight.t() if isinstance(self, Conv1D) else self.weight
        norm = torch.linalg.vector_norm(weight.flatten(1), dim=1, dtype=wide_dtype(weight))
        return norm.view(-1, *[1] * (-1 - self._channel_dim))

    def response(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """w . x of each unit, and |w| where it is still to be divided by."""
        lin, row_norm = self._linear(x), self._row_norm()
        if self.bias is not None:
            bias = self.bias.view(-1, *[1] * (-1 - self._channel_dim))
            lin = self.with_constant(lin, bias)
        if self.max_out > 1:
            lin = lin if row_norm is None else (lin / row_norm).to(lin.dtype)
            lin, row_norm = lin.unflatten(self._channel_dim, (-1, self.max_out)).amax(self._channel_dim), None
        return lin, row_norm

    def linear(self, x: Tensor) -> Tensor:
        """What the layer computes with B = 1."""
        lin, row_norm = self.response(x)
        return lin if row_norm is None else (lin / row_norm).to(lin.dtype)

    def forward(self, x: Tensor, scaled: bool = True) -> Tensor:
        """The response, `scaled` by the cosine, or, without it, what the layer computes with B = 1."""
        if not scaled or (isinstance(self.b, float) and self.b == 1):
            return self.linear(x)
        norm = self._input_norm(x.detach() if self.explaining else x)  # first: x is still in the cache, and lin will be
        lin, row_norm = self.response(x)
        if not self.explaining:
            return bcos_scaling(lin, norm, row_norm, self.b)
        with torch.no_grad():
            factor = cosine_factor(lin, norm, row_norm, self.b)
        y = (lin * factor).to(lin.dtype)
        if row_norm is not None and row_norm.requires_grad:
            y = y * (row_norm.detach() / row_norm).to(lin.dtype)  # 1, with the derivative of the division by |w| that `factor` holds constant
        return y

    def extra_repr(self) -> str:
        b = f"{float(self.b.detach() if isinstance(self.b, Tensor) else self.b):g}" + (" (learnable)" if isinstance(self.b, Tensor) else "")
        shared = f"b={b}" + (f", weight_norm={self.weight_norm}" if self.weight_norm != "none" else "")
        return f"{super().extra_repr()}, {shared}" + (f", max_out={self.max_out}" if self.max_out > 1 else "")


class BcosLinear(Bcos, nn.Linear):
    """nn.Linear with the B-cos scaling; x [..., in_features] -> [..., out_features]. `eps` 1e-12 is the vision papers', 1e-3 B-cos LM's."""

    eps = 1e-12

    def __init__(self, in_features: int, out_features: int, bias: bool = False, device=None, dtype=None, **bcos) -> None:
        super().__init__(in_features, out_features * bcos.get("max_out", 1), bias=bias, device=device, dtype=dtype)
        self.set_bcos(**bcos)

    def _linear(self, x: Tensor) -> Tensor:
        by_rows = self.explaining and not (self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad))
        return (linear_by_rows if by_rows else F.linear)(x, self.weight, self.bias)

    def _input_norm(self, x: Tensor) -> Tensor:
        return _with_eps(torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide_dtype(x)), self.eps)


class BcosConv1D(Bcos, Conv1D):
    """GPT-2's Conv1D (a linear layer with a transposed weight) with the B-cos scaling; x [..., nx] -> [..., nf]."""

    def __init__(self, nf: int, nx: int, bias: bool = False, **bcos) -> None:
        super().__init__(nf * bcos.get("max_out", 1), nx)
        if not bias:
            self.bias = None
        self.set_bcos(**bcos)

    def _linear(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.t(), self.bias)

    _input_norm = BcosLinear._input_norm


class BcosConv2d(Bcos, nn.Conv2d):
    """nn.Conv2d with the B-cos scaling; x [N, in_channels, H, W] -> [N, out_channels, H', W'].

    The norm is that of the patch under each output, for any stride, padding, padding_mode, dilation and groups.

    Attributes:
        blur: x is blurred first (see `bcos_blur`); of a layer with a stride.
    """

    _channel_dim = -3
    blur = False

    def __init__(self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0, dilation=1, groups: int = 1,
                 bias: bool = False, padding_mode: str = "zeros", device=None, dtype=None, **bcos) -> None:  # fmt: skip
        rows = out_channels * bcos.get("max_out", 1)
        super().__init__(in_channels, rows, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype)
        self.set_bcos(**bcos)

    def seen(self, x: Tensor) -> Tensor:
        """What the weights are applied to: x, or x blurred."""
        return binomial_blur(x) if self.blur else x

    def forward(self, x: Tensor, scaled: bool = True) -> Tensor:
        return super().forward(self.seen(x), scaled)

    def _linear(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight, self.bias)

    def _input_norm(self, x: Tensor) -> Tensor:
        if self.kernel_size == (1, 1) and self.padding == (0, 0):
            sums = self._squares(x[..., :: self.stride[0], :: self.stride[1]])
        else:
            sums = self._window_sum(self._squares(x))
        norm = (sums + self.eps**2).sqrt()
        return norm if self.groups == 1 else norm.repeat_interleave(self.out_channels // self.max_out // self.groups, dim=-3)

    def _squares(self, x: Tensor) -> Tensor:
        """Sum of squares over the channels of each group, [N, groups, H, W]."""
        return sum_of_squares(x.unflatten(-3, (self.groups, -1)))

    def _window_sum(self, x: Tensor) -> Tensor:
        """Sum of x [N, groups, H, W] over the window under each output."""
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        x = F.pad(x, self._reversed_padding_repeated_twice, mode=mode)
        if self.dilation == (1, 1):
            return F.avg_pool2d(x, self.kernel_size, self.stride, divisor_override=1)
        return F.conv2d(x, x.new_ones(self.groups, 1, *self.kernel_size), None, self.stride, 0, self.dilation, self.groups)


def _with_eps(norm: Tensor, eps: float) -> Tensor:
    return (norm.square() + eps**2).sqrt()
