"""A picture explanation as a static, self-contained page: the input, the colour explanation and the signed contributions as PNGs within the page.

Shade of the signed map is |contribution| / legend's end; orange speaks for the class, blue against it. The page adds up: sum of contributions +
constant + residual = logit.
"""

import base64
import io
import os
from html import escape

from torch import Tensor

from .figures import AGAINST, FOR
from .image import on_white
from .image_reading import ImageReading, averaged, read_image
from .page import equation, facts, legend, write_page


SMALL = 128  # pixels: from this side on a browser may smooth what it enlarges

# the legend has the colours of the map, whose opacity lets the paper through, white or dark
CSS = f"""
.bcos-image{{--for:{" ".join(str(int(FOR[at : at + 2], 16)) for at in (1, 3, 5))};--against:{" ".join(str(int(AGAINST[at : at + 2], 16)) for at in (1, 3, 5))}}}
.bcos-image .pictures{{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:1rem 1.25rem;padding:1rem 1.25rem}}
.bcos-image figure{{max-width:20rem;margin:0}}
.bcos-image img{{display:block;width:100%;height:auto;border-radius:.25rem;box-shadow:0 0 0 1px rgb(var(--line))}}
.bcos-image img.small{{image-rendering:pixelated}}
.bcos-image figcaption{{margin-top:.375rem}}
"""


def image_to_html(
    explanation, path: str | os.PathLike | None = None, title: str | None = None, fragment: bool = False, mean=None, std=None, smooth: int | str | None = "fit"
) -> str:
    """A static page of every input and target, without script or anything from elsewhere; all that users wrote is escaped.

    Args:
        explanation: contributions [N, K, H, W]; the input is shown if it has `pixel_values`, the colours if it has `weights` (see `read_image`).
        path: also write it there, all or nothing.
        title: heading. fragment: for embedding in another page, without <html>.
        mean, std: of the image processor, see `to_picture`.
        smooth: side in pixels of the square that both maps are averaged over; "fit": 15 for 224 x 224, as large a part of others.

    Raises:
        ImportError: Pillow is not installed. OSError: the file cannot be written.
        ValueError: an explanation that is not of pictures, a mean, std or `smooth` that does not fit.
    """

    def block(index: int, target: int) -> str:
        return _block(read_image(explanation, index, target, mean, std, smooth))

    return write_page(explanation, block, "image", CSS, title, fragment, path)


def _block(reading: ImageReading) -> str:
    why = f"of {reading.explained_against}"
    figures = [
        _figure(reading.picture, "input", "the input"),
        _figure(None if reading.colours is None else on_white(reading.colours), "colour explanation", f"colour explanation {why}"),
        _figure(reading.signed, averaged("contributions", reading.smooth), f"signed contributions to the logit {why}"),
    ]
    return f'<article>{facts(reading)}<div class="pictures">{"".join(figures)}</div><footer>{legend(reading.peak)}{equation(reading)}</footer></article>'


def _figure(picture: Tensor | None, caption: str, alternative: str) -> str:
    if picture is None:
        return ""
    height, width = picture.shape[:2]
    small = ' class="small"' if max(height, width) < SMALL else ""
    img = f'<img{small} src="{data_uri(picture)}" width="{width}" height="{height}" alt="{escape(alternative)}">'
    return f"<figure>{img}<figcaption>{escape(caption)}</figcaption></figure>"


def data_uri(picture: Tensor) -> str:
    """A picture [H, W, 3] or [H, W, 4] in [0, 1] as the address of a PNG that is within the address itself; NaN is 0. Raises an ImportError without Pillow."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("image_to_html: expected Pillow, which is not installed: pip install bcos_hf[viz]") from error
    buffer = io.BytesIO()
    Image.fromarray((picture.nan_to_num(0.0).clamp(0, 1) * 255).round().byte().cpu().numpy()).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
