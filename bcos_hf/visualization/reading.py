"""An explanation in plain numbers and harmless words, for whatever draws it: what is common to texts and pictures, and texts."""

import math
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Score:
    """A class by its name and logit; `single` is False for the mean over classes, which has no probability."""

    name: str
    logit: float
    single: bool = True
    quantity: str = "logit"

    @property
    def probability(self) -> float:
        """The sigmoid of the logit; of what is no logit, itself from 0 to 1."""
        if self.quantity != "logit":
            return min(max(self.logit, 0.0), 1.0)
        return 0.5 + 0.5 * math.tanh(self.logit / 2)  # without overflow

    @property
    def chance(self) -> str:
        """The probability with three decimals."""
        return "<0.001" if self.probability < 0.001 else ">0.999" if self.probability > 0.999 else f"{self.probability:.3f}"

    def __str__(self) -> str:
        chance = f" · probability (sigmoid) {self.chance}" if self.single and self.quantity == "logit" else ""
        return f"{self.quantity} {signed(self.logit, '.3f')}{chance}"


@dataclass(frozen=True)
class Decision:
    """One example and target in plain numbers; `total` is the sum of all contributions."""

    total: float
    constant: float
    predicted: Score
    explained: Score
    contrast: Score | None

    @property
    def explained_against(self) -> str:
        """The class explained, and what it is held against."""
        return self.explained.name + (f" rather than {self.contrast.name}" if self.contrast else "")

    def equation(self, shown: float | None = None) -> list[tuple[str, str]]:
        """Pairs of words and printed number: the terms, then the logit. Rest and residual are named if one can see them at the printed precision.

        `shown` is the sum of those contributions that are shown; None for all of them.
        """
        first, shown = ("sum of contributions", self.total) if shown is None else ("sum of shown", shown)
        logit = self.explained.logit - (self.contrast.logit if self.contrast else 0.0)
        form = f".{decimals(max(abs(shown), abs(self.constant), abs(logit)))}f"
        terms = {first: shown, "rest": self.total - shown, "constant": self.constant, "residual": logit - self.total - self.constant}
        printed = {k: float(format(v, form)) for k, v in terms.items() if k in (first, "constant") or float(format(v, form)) != 0}
        # Rounding may leave the printed numbers one unit apart in the last place: then they do not claim to be equal.
        sign = "=" if format(sum(printed.values()) - float(format(logit, form)), "+" + form).strip("+-0.") == "" else "≈"
        name = self.explained.quantity + ("" if self.contrast is None else " difference" if self.contrast.single else " above the mean")
        words = [k if i == 0 else f"+ {k}" for i, k in enumerate(printed)]
        return [*zip(words, (signed(v, form) for v in printed.values()), strict=True), (f"{sign} {name}", signed(logit, form))]

    def headline(self, shown: float | None = None) -> str:
        """Two lines for a figure: the class and what it is held against, then the equation."""
        terms = " ".join(f"{words} {number}" for words, number in self.equation(shown))
        return f"{self.explained_against} (predicted {self.predicted.name}, {self.predicted.quantity} {signed(self.predicted.logit, '.3f')})\n{terms}"


@dataclass(frozen=True)
class Reading(Decision):
    """A decision about a text; `tokens`, `starts`, `values`, `positions` leave padding out."""

    tokens: list[str]
    starts: list[bool]
    values: list[float]
    positions: list[int]

    @property
    def peak(self) -> float:
        """The largest finite |contribution|, 0 if there is none."""
        return max((abs(v) for v in self.values if math.isfinite(v)), default=0.0)


def score(explanation: Any, index: int, number: int) -> Score:
    """Class `number` of example `index`."""
    name = visible(explanation.labels[number] if explanation.labels is not None else f"class {number}")
    return Score(name, explanation.logits[index, number].item(), quantity=explanation.quantity)


def decide(explanation: Any, index: int = 0, target: int = 0) -> Decision:
    """What is decided for example `index` and its `target`-th target, for texts and pictures alike. Raises an IndexError if there is no such one."""
    shape = explanation.contributions.shape
    if not (-shape[0] <= index < shape[0] and -shape[1] <= target < shape[1]):
        raise IndexError(f"expected an example of {shape[0]} and a target of {shape[1]}, got {index} and {target}")
    contrast = None if explanation.contrast is None else score(explanation, index, int(explanation.contrast[index, target]))
    mean = explanation.logits[index].detach().cpu().double().mean().item()
    return Decision(
        total=explanation.contributions[index, target].detach().cpu().double().sum().item(),
        constant=explanation.constant[index, target].item(),
        predicted=score(explanation, index, int(explanation.logits[index].argmax())),
        explained=score(explanation, index, int(explanation.targets[index, target])),
        contrast=Score("mean of all classes", mean, single=False) if explanation.relative else contrast,
    )


def read(explanation: Any, index: int = 0, target: int = 0) -> Reading:
    """The plain numbers of a text, its `target`-th target; nameless tokens are #0, #1, ... from the first to the last that contributes.

    Raises:
        ValueError: contributions are not [N, K, L], or tokens do not fit them.
        IndexError: there is no such example or target.
    """
    shape, tokens, starts = tuple(explanation.contributions.shape), explanation.tokens, explanation.starts
    if len(shape) != 3:
        raise ValueError(f"expected text contributions [N, K, L], got {list(shape)}: use the image functions for images")
    decision = decide(explanation, index, target)
    if tokens is not None and (len(tokens) != shape[0] or any(len(row) != shape[2] for row in tokens)):
        raise ValueError(f"expected {shape[0]} lists of {shape[2]} tokens ('' at padding), got lists of {[len(row) for row in tokens]}")
    if tokens is None:
        used = (explanation.contributions[index] != 0).any(0).nonzero().flatten().tolist() or [0, shape[2] - 1]
        positions = list(range(used[0], used[-1] + 1))
    else:
        positions = [i for i, token in enumerate(tokens[index]) if token != ""]
    values = explanation.contributions[index, target].detach().cpu().double()
    return Reading(
        **vars(decision),
        tokens=[f"#{i}" if tokens is None else visible(tokens[index][i]) for i in positions],
        starts=[True if tokens is None or starts is None else starts[index][i] for i in positions],
        values=[values[i].item() for i in positions],
        positions=positions,
    )
