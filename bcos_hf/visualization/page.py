"""What the static pages of texts and of pictures share: colours, style, facts, legend, equation, and the frame around them."""

import os
from collections.abc import Callable
from html import escape
from typing import Any

from bcos_hf.models.bcos_writing import write_text

from .reading import Decision, decimals, signed


# Red green blue. `text` and `muted` meet WCAG AA (4.5:1) on every blend of `paper` with `for` and `against`; a test holds this.
LIGHT = {"paper": "255 255 255", "text": "17 24 39", "muted": "55 65 81", "line": "229 231 235", "for": "255 166 41", "against": "127 180 255"}
DARK = {"paper": "11 15 25", "text": "249 250 251", "muted": "220 224 230", "line": "42 49 65", "for": "160 78 6", "against": "33 88 190"}

_CSS = """
.bcos{LIGHT;color-scheme:light dark;box-sizing:border-box;max-width:60rem;margin:0 auto;padding:1rem;background:rgb(var(--paper));
color:rgb(var(--text));font:400 1rem/1.5 "Source Sans 3","Source Sans Pro",ui-sans-serif,system-ui,sans-serif}
.bcos-page{margin:0;background:#fff}
@media (prefers-color-scheme:dark){.bcos{DARK}.bcos-page{background:#0b0f19}}
.bcos h1{margin:0 0 1rem;font-size:1.375rem;font-weight:600;line-height:1.3;color:inherit}
.bcos h2{margin:1.5rem 0 .5rem;font-size:.875rem;font-weight:600;color:rgb(var(--muted))}
.bcos article{margin:0 0 1rem;border:1px solid rgb(var(--line));border-radius:.75rem}
.bcos dl{display:flex;flex-wrap:wrap;gap:.75rem 2.5rem;margin:0;padding:.875rem 1.25rem;border-bottom:1px solid rgb(var(--line))}
.bcos dt,.bcos dd span,.bcos footer,.bcos figcaption{font-size:.8125rem;font-weight:400;color:rgb(var(--muted));
font-variant-numeric:tabular-nums}
.bcos dd{margin:0;overflow-wrap:anywhere}
.bcos dd bdi{font-size:1.0625rem;font-weight:600}
.bcos dd span{display:block}
.bcos bdi:empty::before{content:"\\2205"}
.bcos footer{padding:.75rem 1.25rem .875rem;border-top:1px solid rgb(var(--line))}
.bcos footer p{margin:0}
.bcos footer b{font-weight:600;color:rgb(var(--text));white-space:nowrap}
.bcos .legend{display:flex;flex-wrap:wrap;align-items:center;gap:.25rem .625rem;margin-bottom:.375rem}
.bcos .legend i{width:8rem;height:.625rem;border-radius:.3125rem;background:linear-gradient(to right,rgb(var(--against)),
rgb(var(--against)/0) 50%,rgb(var(--for)/0) 50%,rgb(var(--for)));box-shadow:inset 0 0 0 1px rgb(var(--text)/.12)}
.bcos i{-webkit-print-color-adjust:exact;print-color-adjust:exact}
"""


def style(own: str) -> str:
    """The style element: what all pages share, and what is a page's `own`."""
    light, dark = (";".join(f"--{name}:{value}" for name, value in colours.items()) for colours in (LIGHT, DARK))
    return f"<style>{_CSS.replace('LIGHT', light, 1).replace('DARK', dark, 1)}{own.lstrip()}</style>"


def facts(decision: Decision) -> str:
    """Which class is predicted, which explained, and rather than which."""
    rows = [("Predicted", decision.predicted), ("Explained", decision.explained), ("Rather than", decision.contrast)]
    if decision.predicted == decision.explained and decision.contrast is None:
        rows[:2] = [("Predicted and explained", decision.explained)]
    cells = (f"<div><dt>{word}</dt><dd><bdi>{escape(s.name)}</bdi><span>{escape(str(s))}</span></dd></div>" for word, s in rows if s is not None)
    return f"<dl>{''.join(cells)}</dl>"


def legend(peak: float) -> str:
    """The scale of colours, whose ends are -peak and peak."""
    form = f".{max(decimals(peak) - 1, 2)}f"
    left, right = f"speaks against {signed(-peak, form)}", f"speaks for {signed(peak, form)}"
    return f'<p class="legend"><span>{left}</span><i></i><span>{right}</span></p>'


def equation(decision: Decision, shown: float | None = None) -> str:
    """The terms that add up to the explained logit (`Decision.equation`)."""
    return "<p>" + " ".join(f"{escape(words)} <b>{number}</b>" for words, number in decision.equation(shown)) + "</p>"


def write_page(
    explanation: Any, block: Callable[[int, int], str], kind: str, css: str, title: str | None, fragment: bool, path: str | os.PathLike | None
) -> str:
    """A page with one `block(index, target)` for every example and target, in a section of class bcos-`kind` styled by `css`; also written to `path`.

    Raises OSError if the file cannot be written; an old one then stays as it is.
    """
    count, targets = explanation.contributions.shape[:2]
    parts = [f"<h1><bdi>{escape(title)}</bdi></h1>"] if title else []
    for index in range(count):
        parts += [f"<h2>Example {index + 1} of {count}</h2>"] if count > 1 else []
        parts += [block(index, target) for target in range(targets)]
    page = f'{style(css)}<section class="bcos bcos-{kind}">{"".join(parts)}</section>'
    if not fragment:
        head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title or "Explanation")}</title>'
        page = f'<!doctype html>\n<html lang="en"><head>{head}</head><body class="bcos-page">{page}</body></html>\n'
    if path is not None:
        write_text(path, page)
    return page
