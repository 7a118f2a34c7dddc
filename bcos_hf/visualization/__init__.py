"""Pictures and pages of explanations."""

from .text import to_html as text_to_html
from .text_plot import plot as plot_text


__all__ = ["plot_text", "text_to_html"]
