"""Explanation: the contributions that add up to a logit, and how they are read off a dynamic linear model in one backward pass.

In explanation mode a network is y = W(x) x + constant, so the gradient of logit k with respect to x is the row [W(x)]_k, and the contribution of
input i is [W(x)]_ki x_i. The constant (kept biases, the logit bias) comes from the same backward pass, through the probe of `explanation_mode`.

Source: Boehle et al., CVPR 2022 (arXiv 2205.10268) section 3.2; Wang et al., TMLR 2025 (arXiv 2502.12992) section 3.
"""

import importlib
import json
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


_TENSORS = ("logits", "targets", "contributions", "constant", "residual", "weights", "contrast", "pixel_values")
_TEXTS = ("tokens", "starts", "words", "labels", "relative")


@dataclass
class Explanation:
    """Why a batch of N inputs got K logits each. Tensors live on the CPU or wherever the model was; contributions are float32 at least.

    Attributes:
        logits: [N, C], as the model gives them.
        targets: [N, K], the classes explained.
        contributions: [N, K, L] for text (0 at padding), [N, K, H, W] for pictures.
        constant: [N, K], what no input contributes: kept biases and the logit bias.
        residual: [N, K], explained logit - sum of contributions - constant: rounding only.
        weights: [N, K, ...] rows of W(x) in the shape of the encoded input ([N, K, L, D] for text, [N, K, 2C, H, W] for pictures); None if not asked for.
        contrast: [N, K], the classes spoken against ('why a rather than b'), or None.
        relative: the explained logit is the target's less the mean over classes.
        tokens: N lists of display texts, '' at padding; None where explain() got no tokenizer.
        starts: N lists of bools, whether a token begins a word. words: N lists, the number of each token's word (-1 padding).
        labels: C class names, or None.
        pixel_values: [N, C, H, W], the pictures as the model got them; None for text.
    """

    logits: Tensor
    targets: Tensor
    contributions: Tensor
    constant: Tensor
    residual: Tensor
    weights: Tensor | None = None
    contrast: Tensor | None = None
    relative: bool = False
    tokens: list[list[str]] | None = None
    starts: list[list[bool]] | None = None
    words: list[list[int]] | None = None
    labels: list[str] | None = None
    pixel_values: Tensor | None = None

    @property
    def explained_logits(self) -> Tensor:
        """The numbers that contributions and constant add up to, [N, K]: target logits, less the contrast's."""
        return explained_logits(self.logits, self.targets, self.contrast, self.relative)

    @property
    def relative_residual(self) -> Tensor:
        """|residual| / sum of |contributions|, [N, K]; at most about 1e-6 in float32."""
        total = self.contributions.flatten(2).abs().sum(-1)
        return self.residual.abs() / total.clamp_min(torch.finfo(total.dtype).tiny)

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, index: int | slice) -> "Explanation":
        """The explanation of one input (N = 1) or of a slice of them."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"explanation {index} of {len(self)}")
            index = slice(index % len(self), index % len(self) + 1)
        picked = {name: getattr(self, name) for name in (*_TENSORS, "tokens", "starts", "words")}
        return replace(self, **{name: value if value is None else value[index] for name, value in picked.items()})

    def to(self, device) -> "Explanation":
        """The same on another device."""
        moved = {name: getattr(self, name) for name in _TENSORS}
        return replace(self, **{name: value if value is None else value.to(device) for name, value in moved.items()})

    def merge_words(self) -> "Explanation":
        """One entry a word: the contributions of a word's pieces added up (WordPiece, byte-level BPE, SentencePiece).

        Weights belong to pieces and are left out. Raises a ValueError where the tokens are unknown.
        """
        if self.words is None:
            raise ValueError("merge_words: expected an explanation that knows its tokens: pass tokenizer=... to explain().")
        words = torch.tensor(self.words, device=self.contributions.device)
        count = int(words.max()) + 1
        merged = self.contributions.new_zeros(*self.contributions.shape[:2], count + 1)  # the last one collects padding, which is 0
        index = words.masked_fill(words < 0, count)[:, None].expand_as(self.contributions)
        merged = merged.scatter_add_(-1, index, self.contributions)[..., :count]
        texts = [[""] * count for _ in self.words]
        starts = [[True] * count for _ in self.words]
        for row, (numbers, tokens, begins) in enumerate(zip(self.words, self.tokens, self.starts, strict=True)):
            for number, token, begin in zip(numbers, tokens, begins, strict=True):
                if number >= 0:
                    starts[row][number] = starts[row][number] if texts[row][number] else begin
                    texts[row][number] += token
        texts = [[text.strip() or text for text in row] for row in texts]  # a lone word marker is a space
        numbers = [[i if text else -1 for i, text in enumerate(row)] for row in texts]
        return replace(self, contributions=merged, weights=None, tokens=texts, starts=starts, words=numbers)

    def to_html(self, path: str | os.PathLike | None = None, **options) -> str:
        """A static page (`bcos_hf.visualization.text_to_html`, whose options these are), also written to `path`."""
        return _visualization().text_to_html(self, path=path, **options)

    def plot(self, path: str | os.PathLike | None = None, **options):
        """A matplotlib figure (`bcos_hf.visualization.plot_text`, whose options these are), also written to `path` as PNG."""
        return _visualization().plot_text(self, path=path, **options)

    def _repr_html_(self) -> str | None:
        return self.to_html(fragment=True) if importlib.util.find_spec("bcos_hf") else None

    def __repr__(self) -> str:
        shape = tuple(self.contributions.shape)
        worst = self.relative_residual.max().item() if self.targets.numel() else 0.0
        return f"Explanation(contributions={shape}, targets={self.targets.tolist()}, largest relative residual={worst:.1e})"

    def save(self, path: str | os.PathLike) -> None:
        """Write everything to a safetensors file, all or nothing."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: getattr(self, name) for name in _TENSORS}
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items() if value is not None}
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            save_file(tensors, temporary, metadata={"bcos_explanation": json.dumps({name: getattr(self, name) for name in _TEXTS})})
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Explanation":
        """Read what `save` wrote; raises a ValueError for a file that is none."""
        try:
            with safe_open(os.fspath(path), framework="pt") as file:
                texts = json.loads((file.metadata() or {})["bcos_explanation"])
                return cls(**{name: file.get_tensor(name) for name in list(file.keys())}, **texts)
        except FileNotFoundError:
            raise
        except Exception as error:
            wanted = [f.name for f in fields(cls)]
            raise ValueError(f"{path}: expected a safetensors file written by Explanation.save, with {wanted}; got: {error}") from error


def explained_logits(logits: Tensor, targets: Tensor, contrast: Tensor | None = None, relative: bool = False) -> Tensor:
    """Target logits [N, K] of logits [N, C], less those of `contrast` [N, K], or less the mean over classes."""
    picked = logits.gather(1, targets)
    if contrast is not None:
        picked = picked - logits.gather(1, contrast)
    return picked - logits.mean(1, keepdim=True) if relative else picked


def as_classes(name: str, value, logits: Tensor, width: int | None = None) -> Tensor:
    """Class numbers given as an int, a list, or a LongTensor [N] or [N, K], as a LongTensor [N, K].

    One dimension of length N is one class an input; for a single input it may have any length K. Raises a ValueError
    for another shape, a non-integer or a class that does not exist.
    """
    (n, classes), given = logits.shape, value
    value = torch.as_tensor(value, device=logits.device)
    if value.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise ValueError(f"{name}: expected whole numbers, got {value.dtype}.")
    value = value.long()
    if value.dim() == 0:
        value = value.expand(n, 1)
    elif value.dim() == 1:
        value = value[None] if n == 1 else value[:, None]
    if value.dim() != 2 or len(value) != n or value.shape[1] < 1:
        shape = tuple(torch.as_tensor(given).shape)
        raise ValueError(f"{name}: expected an int, or shape [{n}] (one class an input) or [{n}, K]; got shape {list(shape)}.")
    if value.min() < 0 or value.max() >= classes:
        raise ValueError(f"{name}: expected classes 0 to {classes - 1}, got {value.min().item()} to {value.max().item()}.")
    if width is not None and value.shape[1] not in (1, width):
        raise ValueError(f"{name}: expected 1 or {width} classes an input (as many as targets), got {value.shape[1]}.")
    return value.expand(n, width or value.shape[1]).contiguous()


def explained(logits: Tensor, x: Tensor, probe: Tensor, targets=None, contrast=None, channel_dim: int = -1, chunk: int | None = None) -> Explanation:
    """The explanation of logits [N, C] that were made in explanation mode from the explained input x [N, ...].

    Args:
        logits: each row depends on its own input only.
        x: a leaf that requires grad. probe: zeros [N], as given to `explanation_mode`.
        targets: None (the predicted class), an int, a list, or a tensor [N] or [N, K]. contrast: the same, or "mean".
        channel_dim: the dimension of x that contributions are summed over.
        chunk: how many of the K backward passes run as one batch. None: 8 on an accelerator, 1 on a CPU, whose caches a batch outgrows.
    """
    chunk = chunk or (1 if x.device.type == "cpu" else 8)
    targets = as_classes("targets", logits.argmax(-1) if targets is None else targets, logits)
    relative = isinstance(contrast, str)
    if relative and contrast != "mean":
        raise ValueError(f"contrast: expected classes or 'mean', got {contrast!r}.")
    contrast = None if contrast is None or relative else as_classes("contrast", contrast, logits, targets.shape[1])
    numbers = explained_logits(logits, targets, contrast, relative)
    weights, constant = _rows(numbers, x, probe, chunk)
    wide = torch.promote_types(x.dtype, torch.float32)
    contributions = (weights * x.detach()[:, None]).sum(channel_dim if channel_dim < 0 else channel_dim + 1, dtype=wide)
    residual = numbers.detach().to(wide) - contributions.flatten(2).sum(-1) - constant.to(wide)
    return Explanation(logits.detach(), targets, contributions, constant.to(wide), residual, weights, contrast, relative)


def _rows(numbers: Tensor, x: Tensor, probe: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Gradients of numbers [N, K] with respect to x [N, ...] and probe [N], as [N, K, ...] and [N, K]; one forward pass serves all K."""
    n, k = numbers.shape
    made = []
    for start in range(0, k, chunk):
        size = min(chunk, k - start)
        one_hot = torch.zeros(size, n, k, dtype=numbers.dtype, device=numbers.device)
        one_hot[range(size), :, range(start, start + size)] = 1
        batched = size > 1
        grads = torch.autograd.grad(
            numbers, (x, probe), one_hot if batched else one_hot[0], retain_graph=start + size < k, is_grads_batched=batched, allow_unused=True
        )
        made.append([_batch_of(grad, like, size) for grad, like in zip(grads, (x, probe), strict=True)])
    return tuple(torch.cat(parts).movedim(0, 1) for parts in zip(*made, strict=True))


def _batch_of(grad: Tensor | None, like: Tensor, size: int) -> Tensor:
    """A gradient as [size, *like.shape]: unused inputs have None, a single backward pass no batch dimension."""
    return like.new_zeros(size, *like.shape) if grad is None else grad.view(size, *like.shape)


def _visualization():
    try:
        return importlib.import_module("bcos_hf.visualization")
    except ImportError as error:
        raise ImportError("Drawing an explanation needs the package itself: pip install bcos_hf[viz]") from error
