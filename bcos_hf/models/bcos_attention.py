"""Attention as a dynamic linear map: softmax(q k^T) v is linear in v once the probabilities are held constant.

They are held where queries and keys are made, so that the rule is the same under sdpa, eager and flash attention, and whatever attention function is
chosen when the model is loaded.

Source: Boehle et al., TPAMI 2024 (arXiv 2306.10898) section 3.3; Wang et al., TMLR 2025 (arXiv 2502.12992) section 3.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from .bcos_dynamic import Dynamic


class QueryKey(Dynamic, nn.Linear):
    """A query or key projection: linear, and constant for autograd in explanation mode; x [..., in_features] -> [..., out_features]."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, self.bias)
        return y.detach() if self.explaining else y


class QueryKeyValue(Dynamic, nn.Linear):
    """Queries, keys and values in one projection: linear, queries and keys constant in explanation mode; x [..., in_features] -> [..., out_features]."""

    partly_constant = True  # queries and keys are factors; the attention that reads all three can be verified, this layer alone cannot

    def forward(self, x: Tensor) -> Tensor:
        return self._parted(F.linear(x, self.weight, self.bias))

    def _parted(self, y: Tensor) -> Tensor:
        if not self.explaining:
            return y
        query_key, value = y.split([2 * y.shape[-1] // 3, y.shape[-1] // 3], dim=-1)
        value = self.with_constant(value, None if self.bias is None else self.bias[-value.shape[-1] :])
        return torch.cat([query_key.detach(), value], dim=-1)


class QueryKeyValueConv1D(QueryKeyValue, Conv1D):
    """`QueryKeyValue` with GPT-2's transposed weight; x [..., nx] -> [..., nf]."""

    def forward(self, x: Tensor) -> Tensor:
        return self._parted(F.linear(x, self.weight.t(), self.bias))
