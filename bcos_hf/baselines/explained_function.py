"""What post-hoc methods explain, as a function: the explained numbers of pixels, of embeddings, or of switches that turn parts of an input off."""

from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from bcos_hf.metrics.pixel_perturbation import FILLS
from bcos_hf.models.bcos_class_names import asked_labels, names_of
from bcos_hf.models.bcos_explaining import asked
from bcos_hf.models.bcos_explanation import Explanation, explained_logits
from bcos_hf.models.bcos_precision import wide_dtype
from bcos_hf.models.bcos_text import input_of, last_tokens
from bcos_hf.models.modeling_bcos import changed_at, leaf_at


class Explained(nn.Module):
    """The explained numbers [n, K] of x, pixels [n, C, H, W] or embeddings [n, L, D], or of switches between x (1) and a baseline (0).

    The same switches are set for every target, so their numbers are kept in `memory`, and K targets cost the forward passes of one.
    """

    def __init__(self, model: nn.Module, made: Explanation, names: list[str], fixed: dict, cell: int) -> None:
        super().__init__()
        self.model, self.relative, self.names, self.fixed, self.cell = model, made.relative, names, fixed, cell
        self.memory: dict[bytes, Tensor] = {}

    def forward(self, value: Tensor, targets: Tensor, contrast: Tensor | None, x: Tensor, baseline: Tensor, *inputs: Tensor) -> Tensor:
        if value.dim() == x.dim():
            return explained_logits(self._logits(value, inputs), targets, contrast, self.relative)
        key = value.cpu().numpy().tobytes()
        if key not in self.memory:
            mixed = baseline + everywhere(value, x, self.cell) * (x - baseline)
            self.memory[key] = explained_logits(self._logits(mixed, inputs), targets, contrast, self.relative)
        return self.memory[key]

    def _logits(self, value: Tensor, inputs: tuple) -> Tensor:
        named = {**dict(zip(self.names, inputs, strict=True)), **self.fixed}
        if value.dim() == 4:
            return self.model(pixel_values=value, **named).logits
        with changed_at(lambda x: value, *input_of(self.model.base_model)):
            return logits_of(self.model, named)


def logits_of(model: nn.Module, inputs: dict) -> Tensor:
    """Logits [N, C] of a classifier, or of a causal language model those of the token that comes next.

    Raises:
        ValueError: another head with logits at every token.
    """
    logits = model(**inputs).logits
    if logits.dim() == 2:
        return logits
    if not model.can_generate():
        raise ValueError(f"expected a classifier of whole texts or pictures, or a causal language model; a {type(model).__name__} has logits at every token.")
    mask = inputs.get("attention_mask")
    return logits[:, -1] if mask is None else logits[torch.arange(len(mask), device=mask.device), last_tokens(mask)]


def switches(x: Tensor, cell: int) -> Tensor:
    """All on: ones [n, L] for embeddings [n, L, D], ones [n, rows, columns] for the cells of pictures [n, C, H, W]."""
    return x.new_ones(x.shape[:2] if x.dim() == 3 else (len(x), *(-(-side // cell) for side in x.shape[2:])))


def everywhere(values: Tensor, x: Tensor, cell: int) -> Tensor:
    """Values of tokens [n, L] or cells [n, rows, columns] at every place of x: [n, L, 1] or [n, 1, H, W]."""
    if x.dim() == 3:
        return values[..., None]
    return values.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, None, : x.shape[2], : x.shape[3]]


def shared_out(values: Tensor, x: Tensor, cell: int) -> Tensor:
    """Values of tokens [n, L] as they are; those of cells [n, rows, columns] in equal parts for their pixels [n, H, W]. Sums stay."""
    if x.dim() == 3:
        return values
    inside = [torch.tensor([min(cell, side - start) for start in range(0, side, cell)], device=x.device) for side in x.shape[2:]]
    return everywhere(values / (inside[0][:, None] * inside[1]), x, cell)[:, 0]


def on_device(model, inputs: dict) -> dict:
    """Inputs where the model is."""
    return {name: value.to(model.device) if isinstance(value, Tensor) else value for name, value in inputs.items()}


@torch.no_grad()
def answered(model: nn.Module, inputs: dict) -> tuple[Tensor, Tensor]:
    """Logits [N, C], and what is explained, x: pixels [N, C, H, W] or embeddings [N, L, D]; inputs where the model is."""
    pixels = inputs.get("pixel_values")
    with nullcontext([pixels]) if pixels is not None else leaf_at(*input_of(model.base_model)) as leaves:
        logits = logits_of(model, inputs)
    return logits, leaves[0].detach()


def unexplained(model: nn.Module, targets, contrast, inputs: dict) -> tuple[Explanation, Tensor]:
    """What a method is asked, for one forward pass: an Explanation whose contributions are zeros, and x as of `answered`.

    Args:
        targets, contrast: as in `explain`. inputs: the model's, where it is.
    """
    logits, x = answered(model, inputs)
    targets, contrast, relative = asked(logits, *asked_labels(targets, contrast, names_of(model, logits.shape[1])))
    numbers, pixels = explained_logits(logits, targets, contrast, relative).to(wide_dtype(logits)), inputs.get("pixel_values")
    contributions = numbers.new_zeros(*targets.shape, *(x.shape[1:2] if pixels is None else x.shape[2:]))
    return Explanation(logits, targets, contributions, torch.zeros_like(numbers), numbers, None, contrast, relative, pixel_values=pixels), x


def attributed(made: Explanation, contributions: Tensor) -> Explanation:
    """`made` with contributions [N, K, ...], and what they do not add up to as residual."""
    return replace(made, contributions=contributions, weights=None, residual=made.explained_logits - contributions.flatten(2).sum(-1))


def absent(baseline, model: nn.Module, x: Tensor, inputs: dict) -> Tensor:
    """What stands for the absence of x, in its shape; `baseline` as in `Options`. Raises a ValueError for one that there is not."""
    if baseline == "pad" and x.dim() == 3 and model.config.pad_token_id is not None:
        baseline = model.config.pad_token_id
    if isinstance(baseline, int) and x.dim() == 3:
        return answered(model, {**inputs, "input_ids": torch.full_like(inputs["input_ids"], baseline)})[1]
    if isinstance(baseline, str) and baseline != "zero":
        if baseline not in FILLS or x.dim() == 3:
            known = "'zero', 'pad', the number of a token" if x.dim() == 3 else f"one of {sorted(FILLS)}"
            raise ValueError(f"baseline: expected {known}, a float or a tensor; got {baseline!r}.")
        return FILLS[baseline](x)
    return torch.as_tensor(0.0 if isinstance(baseline, str) else baseline, dtype=x.dtype, device=x.device).expand_as(x)
