"""What a refit says of each layer."""

import math
from dataclasses import asdict, dataclass

from transformers.utils import logging


logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class LayerFit:
    """What became of one layer.

    Attributes:
        name: of the layer. b: its exponent; 1 of a linear layer. columns: its inputs. rows, held_out: how many were
            fitted, and how many chose and measured.
        r2_before, r2: part of the variance of the target that the layer meets on held-out rows, as it was converted and
            as it was fitted.
        constant: R^2 of the best prediction of 1 from the layer's input: how much of a constant it holds.
        ridge: the one that was chosen, None where the weights stay as they were. towards: "pretrained" or "zero", what
            it shrinks to.
    """

    name: str
    b: float
    columns: int
    rows: int
    held_out: int
    r2_before: float
    r2: float
    constant: float
    ridge: float | None
    towards: str

    def to_dict(self) -> dict:
        """Plain numbers and texts."""
        return asdict(self)


def warn_of_few_rows(fits: list[LayerFit], samples: int) -> None:
    """Say which layer had fewer rows than it has inputs, and how many calibration inputs it takes to change that."""
    short = [(fit.columns / max(fit.rows, 1), fit) for fit in fits if fit.rows < fit.columns]
    if short:
        times, worst = max(short, key=lambda pair: pair[0])
        logger.warning(
            f"calibration: {len(short)} of {len(fits)} layers had fewer rows than inputs, {worst.name} {worst.rows} for "
            f"{worst.columns}; the ridge keeps them near the pretrained weights. About {math.ceil(times * samples)} "
            f"calibration inputs, in the place of {samples}, would be enough."
        )
