"""Explanation: the contributions that add up to a logit. How they are made is in `bcos_explaining`."""

import importlib
import json
import operator
import os
from dataclasses import dataclass, fields, replace

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from .bcos_given import batch_index, picked
from .bcos_writing import written_whole


_TENSORS = ("logits", "targets", "contributions", "constant", "residual", "weights", "contrast", "pixel_values")
_TEXTS = ("tokens", "starts", "words", "shared", "labels", "relative", "quantity")


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
        quantity: what logits are, for legends: "logit", or "cosine" with prompts.
        shared: N lists of bools, whether a token begins with the character that the token before it ends with, as the pieces
            of an emoji do; None where no token does, or tokens are unknown.
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
    quantity: str = "logit"
    shared: list[list[bool]] | None = None

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

    def __getitem__(self, index: int | slice | list[int]) -> "Explanation":
        """The explanation of one input (N = 1), of a slice or of a list of them."""
        index = batch_index(index, len(self))
        found = {name: getattr(self, name) for name in (*_TENSORS, "tokens", "starts", "words", "shared")}
        return replace(self, **{name: value if value is None else picked(value, index) for name, value in found.items()})

    def of_target(self, target: int) -> "Explanation":
        """The explanation of one of the K targets (K = 1). Raises an IndexError or TypeError for none."""
        (target,) = batch_index(operator.index(target), self.targets.shape[1])
        names = ("targets", "contributions", "constant", "residual", "weights", "contrast")
        found = {name: getattr(self, name) for name in names}
        return replace(self, **{name: value if value is None else value[:, [target]] for name, value in found.items()})

    def to(self, device) -> "Explanation":
        """The same on another device."""
        moved = {name: getattr(self, name) for name in _TENSORS}
        return replace(self, **{name: value if value is None else value.to(device) for name, value in moved.items()})

    def merge_words(self) -> "Explanation":
        """One entry a word: the contributions of a word's pieces added up (WordPiece, byte-level BPE, SentencePiece).

        Weights belong to pieces and are left out. Raises a ValueError where the tokens are unknown.
        """
        if self.words is None:
            raise ValueError("merge_words: expected an explanation of text that knows its tokens: pass tokenizer=... to explain().")
        words = torch.tensor(self.words, device=self.contributions.device)
        count = int(words.max()) + 1
        merged = self.contributions.new_zeros(*self.contributions.shape[:2], count + 1)  # the last one collects padding, which is 0
        index = words.masked_fill(words < 0, count)[:, None].expand_as(self.contributions)
        merged = merged.scatter_add_(-1, index, self.contributions)[..., :count]
        texts = [[""] * count for _ in self.words]
        starts = [[True] * count for _ in self.words]
        cuts = self.shared or [[False] * len(row) for row in self.words]
        for row, columns in enumerate(zip(self.words, self.tokens, self.starts, cuts, strict=True)):
            for number, token, begin, cut in zip(*columns, strict=True):
                if number >= 0:
                    starts[row][number] = starts[row][number] if texts[row][number] else begin
                    texts[row][number] += token[cut:]
        texts = [[text.strip() or text for text in row] for row in texts]  # a lone word marker is a space
        numbers = [[i if text else -1 for i, text in enumerate(row)] for row in texts]
        return replace(self, contributions=merged, weights=None, tokens=texts, starts=starts, words=numbers, shared=None)

    def to_html(self, path: str | os.PathLike | None = None, **options) -> str:
        """A static page (`bcos_hf.visualization.text_to_html` or `image_to_html`, whose options these are), also written to `path`."""
        return getattr(_visualization(), f"{self._kind}_to_html")(self, path=path, **options)

    def plot(self, path: str | os.PathLike | None = None, **options):
        """A matplotlib figure (`bcos_hf.visualization.plot_text` or `plot_image`, whose options these are), also written to `path` as PNG."""
        return getattr(_visualization(), f"plot_{self._kind}")(self, path=path, **options)

    @property
    def _kind(self) -> str:
        return "image" if self.contributions.dim() == 4 else "text"

    def _repr_html_(self) -> str | None:
        return self.to_html(fragment=True) if importlib.util.find_spec("bcos_hf") else None

    def __repr__(self) -> str:
        shape = tuple(self.contributions.shape)
        worst = self.relative_residual.max().item() if self.targets.numel() else 0.0
        return f"Explanation(contributions={shape}, targets={self.targets.tolist()}, largest relative residual={worst:.1e})"

    def save(self, path: str | os.PathLike) -> None:
        """Write everything to a safetensors file, all or nothing."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items() if value is not None}
        with written_whole(path) as temporary:
            save_file(tensors, temporary, metadata={"bcos_explanation": json.dumps({name: getattr(self, name) for name in _TEXTS})})

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


def residual_of(made: Explanation) -> float:
    """The largest residual of an explanation, relative to all that adds up to its logit, the constant included."""
    total = made.contributions.flatten(2).abs().sum(-1) + made.constant.abs()
    return (made.residual.abs() / total.clamp_min(torch.finfo(total.dtype).tiny)).max().item()


def explained_logits(logits: Tensor, targets: Tensor, contrast: Tensor | None = None, relative: bool = False) -> Tensor:
    """Target logits [N, K] of logits [N, C], less those of `contrast` [N, K], or less the mean over classes."""
    picked = logits.gather(1, targets)
    if contrast is not None:
        picked = picked - logits.gather(1, contrast)
    return picked - logits.mean(1, keepdim=True) if relative else picked


def _visualization():
    try:
        return importlib.import_module("bcos_hf.visualization")
    except ImportError as error:
        raise ImportError("Drawing an explanation needs the package itself: pip install bcos_hf[viz]") from error
