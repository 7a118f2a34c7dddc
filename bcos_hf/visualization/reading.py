"""An explanation of a text in plain numbers and harmless words, for whatever draws it."""

import math
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any


_NAMED = [*range(0x80, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_VISIBLE = dict.fromkeys(range(0xD800, 0xE000), "\ufffd") | {c: chr(0x2400 + c) for c in range(0x20)} | {c: f"⟨U+{c:04X}⟩" for c in _NAMED}
_VISIBLE |= {0x09: "⇥", 0x0A: "↵", 0x7F: "␡", 0x2028: "↵", 0x2029: "¶"}


def visible(text: object) -> str:
    """`text` as one harmless line: control, bidi and line-breaking characters become signs one can see, lone surrogates U+FFFD; the rest is kept."""
    return str(text).translate(_VISIBLE)


def decimals(scale: float) -> int:
    """How many decimals show four significant digits of a number as large as `scale` (at least 2, at most 12; 3 for zero and non-finite)."""
    return min(12, max(2, 3 - math.floor(math.log10(scale)))) if 0 < scale < math.inf else 3


def signed(value: float, form: str) -> str:
    """`value` with its sign (a true minus) in the format `form` (".3f"); what prints as zero has no sign."""
    text = format(value, "+" + form)
    return (text[1:] if float(text) == 0 else text).replace("-", "\u2212")


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Write `data` to `path`, making its folder; the old file stays until the new one is whole. Raises OSError and then leaves nothing behind."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class Score:
    """A class by its name and logit; `single` is False for the mean over classes, which has no probability."""

    name: str
    logit: float
    single: bool = True

    def __str__(self) -> str:
        chance = 0.5 + 0.5 * math.tanh(self.logit / 2)  # the sigmoid, without overflow
        shown = "<0.001" if chance < 0.001 else ">0.999" if chance > 0.999 else f"{chance:.3f}"
        return f"logit {signed(self.logit, '.3f')}" + (f" · probability (sigmoid) {shown}" if self.single else "")


@dataclass(frozen=True)
class Reading:
    """One example and target in plain numbers; `tokens`, `starts`, `values` leave padding out; `total` sums all."""

    tokens: list[str]
    starts: list[bool]
    values: list[float]
    positions: list[int]
    total: float
    constant: float
    predicted: Score
    explained: Score
    contrast: Score | None

    @property
    def peak(self) -> float:
        """The largest finite |contribution|, 0 if there is none."""
        return max((abs(v) for v in self.values if math.isfinite(v)), default=0.0)

    def equation(self, shown: float) -> list[tuple[str, str]]:
        """Pairs of words and printed number: the terms, then the logit. Rest and residual are named if one can see them at the printed precision."""
        logit = self.explained.logit - (self.contrast.logit if self.contrast else 0.0)
        form = f".{decimals(max(abs(shown), abs(self.constant), abs(logit)))}f"
        terms = {"sum of shown": shown, "rest": self.total - shown, "constant": self.constant, "residual": logit - self.total - self.constant}
        printed = {k: float(format(v, form)) for k, v in terms.items() if k in ("sum of shown", "constant") or float(format(v, form)) != 0}
        # Rounding may leave the printed numbers one unit apart in the last place: then they do not claim to be equal.
        sign = "=" if format(sum(printed.values()) - float(format(logit, form)), "+" + form).strip("+-0.") == "" else "≈"
        name = "logit" if self.contrast is None else "logit difference" if self.contrast.single else "logit above the mean"
        words = [k if i == 0 else f"+ {k}" for i, k in enumerate(printed)]
        return [*zip(words, (signed(v, form) for v in printed.values()), strict=True), (f"{sign} {name}", signed(logit, form))]


def read(explanation: Any, index: int = 0, target: int = 0) -> Reading:
    """The plain numbers of example `index` and its `target`-th target; nameless tokens are #0, #1, ... from the first to the last that contributes.

    Raises:
        ValueError: contributions are not [N, K, L], or tokens do not fit them.
        IndexError: there is no such example or target.
    """
    shape, tokens, starts, labels = tuple(explanation.contributions.shape), explanation.tokens, explanation.starts, explanation.labels
    if len(shape) != 3:
        raise ValueError(f"expected text contributions [N, K, L], got {list(shape)}: use the image functions for images")
    if not (-shape[0] <= index < shape[0] and -shape[1] <= target < shape[1]):
        raise IndexError(f"expected an example of {shape[0]} and a target of {shape[1]}, got {index} and {target}")
    if tokens is not None and (len(tokens) != shape[0] or any(len(row) != shape[2] for row in tokens)):
        raise ValueError(f"expected {shape[0]} lists of {shape[2]} tokens ('' at padding), got lists of {[len(row) for row in tokens]}")
    logits, values = (x.detach().cpu().double() for x in (explanation.logits[index], explanation.contributions[index, target]))

    def score(number: int) -> Score:
        return Score(visible(labels[number] if labels is not None else f"class {number}"), logits[number].item())

    contrast = None if explanation.contrast is None else score(int(explanation.contrast[index, target]))
    if tokens is None:
        used = (explanation.contributions[index] != 0).any(0).nonzero().flatten().tolist() or [0, shape[2] - 1]
        positions = list(range(used[0], used[-1] + 1))
    else:
        positions = [i for i, token in enumerate(tokens[index]) if token != ""]
    return Reading(
        tokens=[f"#{i}" if tokens is None else visible(tokens[index][i]) for i in positions],
        starts=[True if tokens is None or starts is None else starts[index][i] for i in positions],
        values=[values[i].item() for i in positions],
        positions=positions,
        total=values.sum().item(),
        constant=explanation.constant[index, target].item(),
        predicted=score(int(logits.argmax())),
        explained=score(int(explanation.targets[index, target])),
        contrast=Score("mean of all classes", logits.mean().item(), single=False) if explanation.relative else contrast,
    )
