"""Pieces of the app's pages: a map laid over its picture, rows of them, refusals. All texts are escaped.

How far a map covers its picture is the CSS variable --cover, which the app's slider sets: 0 the picture alone, 0.5 both, 1 the map alone.
"""

from html import escape

from torch import Tensor

from bcos_hf.visualization.image_html import CSS, data_uri
from bcos_hf.visualization.page import style


_CSS = """
.bcos .layers{position:relative;border-radius:.25rem;background:#fff;box-shadow:0 0 0 1px rgb(var(--line));overflow:hidden}
.bcos .layers img{box-shadow:none;border-radius:0;opacity:clamp(0,2 - 2*var(--cover,.5),1)}
.bcos .layers img+img{position:absolute;inset:0;height:100%;opacity:clamp(0,2*var(--cover,.5),1)}
.bcos figcaption b{display:block;color:rgb(var(--text));font-size:.9375rem;font-weight:600;overflow-wrap:anywhere}
.bcos .refusal{margin:0;padding:1rem 1.25rem;border-left:.25rem solid #dc2626}
.bcos .hint{margin:0;padding:1rem 1.25rem;color:rgb(var(--muted))}
.bcos.bcos-image .pictures{grid-template-columns:repeat(auto-fill,minmax(12rem,1fr))}
"""
STYLE = style(CSS + _CSS)


def layered(picture: Tensor, colours: Tensor | None, title: str, words: str, alternative: str) -> str:
    """A figure: a picture [H, W, 3] under a map [H, W, 4], both in [0, 1], with a title and words below."""
    height, width = picture.shape[:2]
    size = f'width="{width}" height="{height}"'
    images = f'<img src="{data_uri(picture)}" {size} alt="{escape(alternative)}">'
    if colours is not None:
        images = f'<div class="layers">{images}<img src="{data_uri(colours)}" {size} alt=""></div>'
    return f"<figure>{images}<figcaption><b>{escape(title)}</b>{escape(words)}</figcaption></figure>"


def section(inside: str) -> str:
    """What the app shows as one result."""
    return f'{STYLE}<section class="bcos bcos-image"><article>{inside}</article></section>'


def gallery(figures: list[str], head: str = "", foot: str = "") -> str:
    """Figures in rows, between HTML that was made by `page.facts`, `page.legend` and the like."""
    return section(f'{head}<div class="pictures">{"".join(figures)}</div><footer>{foot}</footer>')


def refusal(message: str) -> str:
    """Why there is no result, in its place."""
    return section(f'<p class="refusal" role="alert">{escape(message)}</p>')


def hint(message: str) -> str:
    """What to do first."""
    return section(f'<p class="hint">{escape(message)}</p>')
