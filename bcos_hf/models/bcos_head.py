"""The layer that makes logits: a B-cos layer with temperature and logit bias, logits = f(x) / T + bias.

The bias is the log odds of a uniform guess, -log(num_classes - 1), in the vision papers; language models have none. It is a constant and is counted
as one in explanations. Source: Boehle et al., TPAMI 2024 (arXiv 2306.10898) section 4.
"""

from torch import Tensor

from .bcos_layers import BcosLinear


class BcosLogits(BcosLinear):
    """BcosLinear whose output is divided by `logit_temperature` and shifted by `logit_bias`; x [..., in_features] -> [..., num_labels]."""

    logit_bias: float | None = None
    logit_temperature: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        if self.logit_temperature is not None:
            logits = logits / self.logit_temperature
        if self.logit_bias is not None:
            logits = self.with_constant(logits + self.logit_bias, logits.new_tensor(self.logit_bias))
        return logits
