"""The numbers of a conversion: the state of a standard model as the state of its B-cos twin.

Where the twin computes the same function from other numbers they are made here: the split first layer, the running mean of a BatchNorm folded into its
bias, equal MaxOut rows. Source: Arya et al., NeurIPS 2024 (arXiv 2411.00715) section 3.
"""

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .bcos_batch_norm import UncenteredBatchNorm2d, folded_bias
from .bcos_inputs import BcosPatchStem, BcosStem, add_inverse_weights, split_weight
from .bcos_layers import Bcos


def matched_state(model: nn.Module, twin: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a standard `model` under the names of its `twin`, and name -> reason for those that it has no place for.

    A head more or less changes the names by the base model's prefix; a head of another kind, or for another number of labels, is dropped.
    """
    prefix, wanted = f"{model.base_model_prefix}.", set(twin.state_dict())
    state, dropped = {}, {}
    head = {f"{name}.{key}" for name in twin.roles.logits for key in ("weight", "bias")}
    for name, value in model.state_dict().items():
        match = next((key for key in (name, prefix + name, name.removeprefix(prefix)) if key in wanted), None)
        if match in head and len(value) != twin.config.num_labels:
            dropped[name] = f"a head for {len(value)} labels, not {twin.config.num_labels}"
        elif match is not None:
            state[match] = value
        elif name.endswith("bias") and not twin.config.keep_biases:
            dropped[name] = "bias"
        elif name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            dropped[name] = "statistics, which the norm in its place does not have"
        else:
            dropped[name] = "a part that the B-cos model does not have"
    return state, dropped


def completed_state(state: dict[str, Tensor], twin: nn.Module, pixels: tuple[Tensor, Tensor] | None = None) -> dict[str, Tensor]:
    """`state` with the numbers that the layers of `twin` compute otherwise or have besides. Changes `state`, not its tensors.

    Args:
        pixels: (mean, std), [C] each, that the standard model's images are normalized with; what input_encoding "add_inverse" needs.
    """
    config = twin.config
    for name, module in twin.named_modules():
        if isinstance(module, Bcos):
            _complete_layer(state, name, module, config, pixels)
        elif isinstance(module, UncenteredBatchNorm2d) and module.bias is not None and config.batch_norm == "uncentered":
            state[f"{name}.bias"] = _folded(state, name, module.eps)
    return state


def _complete_layer(state: dict[str, Tensor], name: str, layer: Bcos, config, pixels: tuple[Tensor, Tensor] | None) -> None:
    weight, bias = f"{name}.weight", f"{name}.bias"
    if isinstance(layer, BcosStem | BcosPatchStem) and config.input_encoding != "none" and weight in state:
        inverse = config.input_encoding == "add_inverse"
        state[weight] = add_inverse_weights(state[weight], *pixels) if inverse else split_weight(state[weight], config.num_channels)
    rows = 1 if isinstance(layer, Conv1D) else 0
    for key, dim in ((weight, rows), (bias, 0)):
        if layer.max_out > 1 and key in state:
            state[key] = state[key].repeat_interleave(layer.max_out, dim)
    if isinstance(layer.b, nn.Parameter):
        state[f"{name}.b"] = torch.tensor(layer.initial_b)


def _folded(state: dict[str, Tensor], name: str, eps: float) -> Tensor:
    """beta - gamma mean / sqrt(var + eps) of the BatchNorm `name`, [C]."""
    parts = {key: state.get(f"{name}.{key}") for key in ("bias", "weight", "running_mean", "running_var")}
    if any(part is None for part in parts.values()):
        raise ValueError(
            f"{name}: expected a BatchNorm2d with running statistics and affine parameters, whose mean can be folded into its bias; it lacks "
            f"{', '.join(key for key, part in parts.items() if part is None)}. Convert with keep_biases=False or batch_norm='centered'."
        )
    return folded_bias(**parts, eps=eps)
