"""What goes to the Hub beside the weights, and the push of it all."""

from .card import model_card
from .conversion_record import recorded_conversion, save_conversion
from .demo_card import results_table, write_demo_card
from .explanations import push_explanations
from .push import push, recorded_evaluation, save_evaluation, write_model_folder


__all__ = [
    "model_card",
    "push",
    "push_explanations",
    "recorded_conversion",
    "recorded_evaluation",
    "results_table",
    "save_conversion",
    "save_evaluation",
    "write_demo_card",
    "write_model_folder",
]
