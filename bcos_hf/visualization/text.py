"""A text explanation as a static, self-contained page: every token shaded by what it adds to the explained logit.

The page adds up: sum of shown + rest + constant + residual = logit. Shade is |contribution| / max |contribution| of the block; orange speaks for the
class, blue against it, and the strongest tokens carry their sign as well, so colour is never the only cue.
"""

import math
import os
import re
import secrets
import unicodedata
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

# Red green blue. `text` and `muted` meet WCAG AA (4.5:1) on every blend of `paper` with `for` and `against`; a test holds this.
LIGHT = {"paper": "255 255 255", "text": "17 24 39", "muted": "55 65 81", "line": "229 231 235", "for": "255 166 41", "against": "127 180 255"}
DARK = {"paper": "11 15 25", "text": "249 250 251", "muted": "220 224 230", "line": "42 49 65", "for": "160 78 6", "against": "33 88 190"}
STRONG = 0.5  # a token with this share of the strongest contribution carries its sign

_SPECIAL = re.compile(r"\[[A-Z0-9_]{2,}\]|</?s>|<(bos|eos|pad|unk|mask|cls|sep)>|<\|\w+\|>")
_NAMED = [*range(0x80, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_VISIBLE = dict.fromkeys(range(0xD800, 0xE000), "\ufffd") | {c: chr(0x2400 + c) for c in range(0x20)} | {c: f"⟨U+{c:04X}⟩" for c in _NAMED}
_VISIBLE |= {0x09: "⇥", 0x0A: "↵", 0x7F: "␡", 0x2028: "↵", 0x2029: "¶"}
_CSS = """
.bcos-text{LIGHT;color-scheme:light dark;box-sizing:border-box;max-width:60rem;margin:0 auto;padding:1rem;background:rgb(var(--paper));
color:rgb(var(--text));font:400 1rem/1.5 "Source Sans 3","Source Sans Pro",ui-sans-serif,system-ui,sans-serif}
@media (prefers-color-scheme:dark){.bcos-text{DARK}}
.bcos-text h1{margin:0 0 1rem;font-size:1.375rem;font-weight:600;line-height:1.3;color:inherit}
.bcos-text h2{margin:1.5rem 0 .5rem;font-size:.875rem;font-weight:600;color:rgb(var(--muted))}
.bcos-text article{margin:0 0 1rem;border:1px solid rgb(var(--line));border-radius:.75rem}
.bcos-text dl{display:flex;flex-wrap:wrap;gap:.75rem 2.5rem;margin:0;padding:.875rem 1.25rem;border-bottom:1px solid rgb(var(--line))}
.bcos-text dt,.bcos-text dd span,.bcos-text footer{font-size:.8125rem;font-weight:400;color:rgb(var(--muted));font-variant-numeric:tabular-nums}
.bcos-text dd{margin:0;overflow-wrap:anywhere}
.bcos-text dd bdi{font-size:1.0625rem;font-weight:600}
.bcos-text dd span{display:block}
.bcos-text .tokens{margin:0;padding:1rem 1.25rem;font-size:1.125rem;line-height:2;overflow-wrap:anywhere}
.bcos-text .tokens bdi{padding:.14em .16em;margin:0 .5px;border-radius:.25em;white-space:pre-wrap;box-decoration-break:clone;
-webkit-box-decoration-break:clone}
.bcos-text .f{background:rgb(var(--for)/var(--a))}
.bcos-text .a{background:rgb(var(--against)/var(--a))}
.bcos-text .tokens .m{font:.78em/1 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;color:rgb(var(--muted))}
.bcos-text .s{text-decoration:underline 2px;text-underline-offset:.24em}
.bcos-text .a.s{text-decoration-style:dotted}
.bcos-text .s::after{display:inline-block;margin-left:.1em;font:600 .7em/1 ui-sans-serif,system-ui,sans-serif;vertical-align:.55em}
.bcos-text .f.s::after{content:"+"}
.bcos-text .a.s::after{content:"\\2212"}
.bcos-text bdi:empty::before{content:"\\2205"}
.bcos-text footer{padding:.75rem 1.25rem .875rem;border-top:1px solid rgb(var(--line))}
.bcos-text footer p{margin:0}
.bcos-text footer b{font-weight:600;color:rgb(var(--text));white-space:nowrap}
.bcos-text .legend{display:flex;flex-wrap:wrap;align-items:center;gap:.25rem .625rem;margin-bottom:.375rem}
.bcos-text .legend i{width:8rem;height:.625rem;border-radius:.3125rem;background:linear-gradient(to right,rgb(var(--against)),
rgb(var(--against)/0) 50%,rgb(var(--for)/0) 50%,rgb(var(--for)));box-shadow:inset 0 0 0 1px rgb(var(--text)/.12)}
.bcos-text .tokens bdi,.bcos-text i{-webkit-print-color-adjust:exact;print-color-adjust:exact}
"""


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
    """One example and target in plain numbers; `tokens`, `starts`, `values` leave padding out and begin at position `first`; `total` sums all."""

    tokens: list[str]
    starts: list[bool]
    values: list[float]
    first: int
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


def _check(explanation: Any, index: int, target: int) -> None:
    shape, tokens, starts = tuple(explanation.contributions.shape), explanation.tokens, getattr(explanation, "starts", None)
    if len(shape) != 3:
        raise ValueError(f"expected text contributions [N, K, L], got {list(shape)}: use the image functions for images")
    if not (-shape[0] <= index < shape[0] and -shape[1] <= target < shape[1]):
        raise IndexError(f"expected an example of {shape[0]} and a target of {shape[1]}, got {index} and {target}")
    if tokens is not None and (len(tokens) != shape[0] or any(len(row) > shape[2] for row in tokens)):
        raise ValueError(f"expected {shape[0]} lists of at most {shape[2]} tokens, got lists of {[len(row) for row in tokens]}: drop the padding")
    if tokens is not None and starts is not None and [len(row) for row in starts] != [len(row) for row in tokens]:
        raise ValueError("expected one flag in `starts` for each token: pass None if every token begins a word")


def read(explanation: Any, index: int, target: int) -> Reading:
    """The plain numbers of example `index` and its `target`-th target; nameless tokens are #0, #1, ... from the first to the last that contributes.

    Raises:
        ValueError: contributions are not [N, K, L], or tokens or starts do not fit them.
        IndexError: there is no such example or target.
    """
    _check(explanation, index, target)
    logits, values = (x.detach().cpu().double() for x in (explanation.logits[index], explanation.contributions[index, target]))
    labels, tokens, starts, contrast = (getattr(explanation, name, None) for name in ("labels", "tokens", "starts", "contrast"))

    def score(number: int) -> Score:
        return Score(visible(labels[number] if labels is not None else f"class {number}"), logits[number].item())

    if tokens is None:
        used = (explanation.contributions[index] != 0).any(0).nonzero().flatten().tolist() or [0, len(values) - 1]
    first, end = (0, len(tokens[index])) if tokens is not None else (used[0], used[-1] + 1)
    mean = Score("mean of all classes", logits.mean().item(), single=False)
    return Reading(
        tokens=[visible(t) for t in tokens[index]] if tokens is not None else [f"#{i}" for i in range(first, end)],
        starts=list(starts[index]) if tokens is not None and starts is not None else [True] * (end - first),
        values=values[first:end].tolist(),
        first=first,
        total=values.sum().item(),
        constant=explanation.constant[index, target].item(),
        predicted=score(int(logits.argmax())),
        explained=score(int(explanation.targets[index, target])),
        contrast=None if contrast is None else mean if isinstance(contrast, str) else score(int(contrast[index, target])),
    )


def _token(text: str, value: float, position: int, peak: float) -> str:
    strength = min(abs(value) / peak, 1.0) if peak > 0 and math.isfinite(value) else 0.0
    kinds = ["f" if value > 0 else "a"] * (strength > 0) + ["s"] * (strength >= STRONG) + ["m"] * bool(_SPECIAL.fullmatch(text))
    look = (f' class="{" ".join(kinds)}"' if kinds else "") + (f' style="--a:{strength:.3f}"' if strength > 0 else "")
    return f'<bdi{look} title="{signed(value, ".8g")} · token #{position}">{escape(text)}</bdi>'


def _tokens(reading: Reading, shown: int) -> str:
    """The tokens as one paragraph, in the direction of its first letter: each is isolated, so that none can reorder its neighbours."""
    letters = (unicodedata.bidirectional(c) for text in reading.tokens for c in text)
    direction = "rtl" if next((kind for kind in letters if kind in ("L", "R", "AL")), "L") != "L" else "ltr"
    spans = (
        " " * (start and i > 0) + _token(text, value, reading.first + i, reading.peak)
        for i, (text, start, value) in enumerate(zip(reading.tokens[:shown], reading.starts, reading.values, strict=False))
    )
    return f'<p class="tokens" dir="{direction}" translate="no">{"".join(spans)}</p>'


def _facts(reading: Reading) -> str:
    rows = [("Predicted", reading.predicted), ("Explained", reading.explained), ("Rather than", reading.contrast)]
    if reading.predicted == reading.explained:
        rows[:2] = [("Predicted and explained", reading.explained)]
    cells = (f"<div><dt>{word}</dt><dd><bdi>{escape(s.name)}</bdi><span>{escape(str(s))}</span></dd></div>" for word, s in rows if s is not None)
    return f"<dl>{''.join(cells)}</dl>"


def _block(reading: Reading, max_tokens: int | None) -> str:
    count, peak = len(reading.tokens), reading.peak
    shown = count if max_tokens is None else min(count, max_tokens)
    part, bound = math.fsum(reading.values[:shown]) if False else sum(reading.values[:shown]), f".{max(decimals(peak) - 1, 2)}f"
    left, right = (f"{words} {signed(x, bound)}" for words, x in (("speaks against", -peak), ("speaks for", peak)))
    return ""
