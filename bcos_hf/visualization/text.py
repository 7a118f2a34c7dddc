"""A text explanation as a static, self-contained page: every token shaded by what it adds to the explained logit.

The page adds up: sum of shown + rest + constant + residual = logit. Shade is |contribution| / max |contribution| of the block; orange speaks for the
class, blue against it, and the strongest tokens carry their sign as well, so colour is never the only cue.
"""

import math
import os
import re
import unicodedata
from html import escape

from .page import equation, facts, legend, write_page
from .reading import Reading, decimals, read, signed


STRONG = 0.5  # a token with this share of the strongest contribution carries its sign

_SPECIAL = re.compile(r"\[[A-Z0-9_]{2,}\]|</?s>|<(bos|eos|pad|unk|mask|cls|sep)>|<\|\w+\|>")
_CSS = """
.bcos-text .tokens{margin:0;padding:1rem 1.25rem;font-size:1.125rem;line-height:2;overflow-wrap:anywhere}
.bcos-text .tokens bdi{padding:.14em .16em;margin:0 .5px;border-radius:.25em;white-space:pre-wrap;box-decoration-break:clone;
-webkit-box-decoration-break:clone;-webkit-print-color-adjust:exact;print-color-adjust:exact}
.bcos-text .f{background:rgb(var(--for)/var(--a))}
.bcos-text .a{background:rgb(var(--against)/var(--a))}
.bcos-text .tokens .m{font:.78em/1 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;color:rgb(var(--muted))}
.bcos-text .s{text-decoration:underline 2px;text-underline-offset:.24em}
.bcos-text .a.s{text-decoration-style:dotted}
.bcos-text .s::after{display:inline-block;margin-left:.1em;font:600 .7em/1 ui-sans-serif,system-ui,sans-serif;vertical-align:.55em}
.bcos-text .f.s::after{content:"+"}
.bcos-text .a.s::after{content:"\\2212"}
"""


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
        " " * (start and i > 0) + _token(text, value, reading.positions[i], reading.peak)
        for i, (text, start, value) in enumerate(zip(reading.tokens[:shown], reading.starts, reading.values, strict=False))
    )
    return f'<p class="tokens" dir="{direction}" translate="no">{"".join(spans)}</p>'


def _block(reading: Reading, max_tokens: int | None) -> str:
    count = len(reading.tokens)
    shown = count if max_tokens is None else min(count, max_tokens)
    part, form = sum(reading.values[:shown]), f".{max(decimals(reading.peak) - 1, 2)}f"
    cut = f"<p>first {shown:,} of {count:,} tokens shown; the rest contributes {signed(reading.total - part, form)}</p>" if shown < count else ""
    return f"<article>{facts(reading)}{_tokens(reading, shown)}<footer>{legend(reading.peak)}{cut}{equation(reading, part)}</footer></article>"


def to_html(explanation, path: str | os.PathLike | None = None, title: str | None = None, max_tokens: int | None = None, fragment: bool = False) -> str:
    """A static page of every example and target, without script or anything from elsewhere; all that users wrote is escaped.

    Args:
        explanation: contributions [N, K, L]; best with `tokens`.
        path: also write it there, all or nothing.
        title: heading. max_tokens: show so many tokens of each text; what the rest contributes is said.
        fragment: for embedding in another page, without <html>.

    Raises:
        ValueError: an explanation that is not of a text, max_tokens below 1. OSError: the file cannot be written.
    """
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"max_tokens: expected a whole number >= 1 or None, got {max_tokens!r}")
    return write_page(explanation, lambda index, target: _block(read(explanation, index, target), max_tokens), "text", _CSS, title, fragment, path)
