"""Pictures and pages of explanations."""

from .image import gradient_to_image, on_white, overlay, picture_grid, signed_map, to_picture
from .image_comparison import plot_comparison
from .image_html import image_to_html
from .image_plot import plot_image, plot_image_rows
from .text import to_html as text_to_html
from .text_plot import plot as plot_text


__all__ = [
    "gradient_to_image",
    "image_to_html",
    "on_white",
    "overlay",
    "picture_grid",
    "plot_comparison",
    "plot_image",
    "plot_image_rows",
    "plot_text",
    "signed_map",
    "text_to_html",
    "to_picture",
]
