"""A text explanation as a static, self-contained page: every token shaded by what it adds to the explained logit.

The page adds up: sum of shown + rest + constant + residual = logit. Shade is |contribution| / max |contribution| of the block; orange speaks for the
class, blue against it, and the strongest tokens carry their sign as well, so colour is never the only cue.
"""

import math
import os
import re
import unicodedata
from html import escape

from .reading import Reading, decimals, read, signed, write_atomically


# Red green blue. `text` and `muted` meet WCAG AA (4.5:1) on every blend of `paper` with `for` and `against`; a test holds this.
LIGHT = {"paper": "255 255 255", "text": "17 24 39", "muted": "55 65 81", "line": "229 231 235", "for": "255 166 41", "against": "127 180 255"}
DARK = {"paper": "11 15 25", "text": "249 250 251", "muted": "220 224 230", "line": "42 49 65", "for": "160 78 6", "against": "33 88 190"}
STRONG = 0.5  # a token with this share of the strongest contribution carries its sign

_SPECIAL = re.compile(r"\[[A-Z0-9_]{2,}\]|</?s>|<(bos|eos|pad|unk|mask|cls|sep)>|<\|\w+\|>")
_CSS = """
.bcos-text{LIGHT;color-scheme:light dark;box-sizing:border-box;max-width:60rem;margin:0 auto;padding:1rem;background:rgb(var(--paper));
color:rgb(var(--text));font:400 1rem/1.5 "Source Sans 3","Source Sans Pro",ui-sans-serif,system-ui,sans-serif}
.bcos-page{margin:0;background:#fff}
@media (prefers-color-scheme:dark){.bcos-text{DARK}.bcos-page{background:#0b0f19}}
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


def _facts(reading: Reading) -> str:
    rows = [("Predicted", reading.predicted), ("Explained", reading.explained), ("Rather than", reading.contrast)]
    if reading.predicted == reading.explained and reading.contrast is None:
        rows[:2] = [("Predicted and explained", reading.explained)]
    cells = (f"<div><dt>{word}</dt><dd><bdi>{escape(s.name)}</bdi><span>{escape(str(s))}</span></dd></div>" for word, s in rows if s is not None)
    return f"<dl>{''.join(cells)}</dl>"


def _block(reading: Reading, max_tokens: int | None) -> str:
    count = len(reading.tokens)
    shown = count if max_tokens is None else min(count, max_tokens)
    part, form = sum(reading.values[:shown]), f".{max(decimals(reading.peak) - 1, 2)}f"
    left, right = f"speaks against {signed(-reading.peak, form)}", f"speaks for {signed(reading.peak, form)}"
    cut = f"<p>first {shown:,} of {count:,} tokens shown; the rest contributes {signed(reading.total - part, form)}</p>" if shown < count else ""
    terms = " ".join(f"{escape(words)} <b>{number}</b>" for words, number in reading.equation(part))
    legend = f'<p class="legend"><span>{left}</span><i></i><span>{right}</span></p>'
    return f"<article>{_facts(reading)}{_tokens(reading, shown)}<footer>{legend}{cut}<p>{terms}</p></footer></article>"


def _style() -> str:
    light, dark = (";".join(f"--{name}:{value}" for name, value in colours.items()) for colours in (LIGHT, DARK))
    return f"<style>{_CSS.replace('LIGHT', light, 1).replace('DARK', dark, 1)}</style>"


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
    count, targets = explanation.contributions.shape[:2]
    parts = [f"<h1><bdi>{escape(title)}</bdi></h1>"] if title else []
    for index in range(count):
        parts += [f"<h2>Example {index + 1} of {count}</h2>"] if count > 1 else []
        parts += [_block(read(explanation, index, target), max_tokens) for target in range(targets)]
    page = f'{_style()}<section class="bcos-text">{"".join(parts)}</section>'
    if not fragment:
        head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title or "Explanation")}</title>'
        body = f'<body class="bcos-page">{page}</body>'
        page = f'<!doctype html>\n<html lang="en"><head>{head}</head>{body}</html>\n'
    if path is not None:
        write_atomically(path, page.encode("utf-8"))
    return page
