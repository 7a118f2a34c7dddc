"""What goes to the Hub beside the weights."""

from .demo_card import results_table, write_demo_card


__all__ = ["results_table", "write_demo_card"]
