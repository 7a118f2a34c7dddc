"""What goes to the Hub beside the weights."""

from .demo_card import write_demo_card


__all__ = ["write_demo_card"]
