"""Which positions of the calibration inputs a layer is fitted to, and which are held out to choose and to measure."""

from dataclasses import dataclass

import torch
from torch import Tensor


FEWEST_ROWS = 8192  # taken of a layer with few inputs


@dataclass(frozen=True)
class RefitSettings:
    """How a refit is done.

    Attributes:
        ridges: to choose from on held-out rows, in parts of the mean square of a layer's inputs.
        steps: of descent behind the activation, at most; it ends where held-out inputs gain no more.
        memory_mb: for the rows of one layer, MiB; where they do not fit, a sample of the positions is taken.
        rows_per_column: rows taken for each input of a layer, at most.
        held_out: every so-manyth input chooses and measures; 0: none does, all rows are fitted.
        seed: of the sampled positions.
    """

    ridges: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    steps: int = 40
    memory_mb: int = 1024
    rows_per_column: int = 16
    held_out: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.ridges or min(self.ridges) < 0:
            raise ValueError(f"ridges: expected at least one number >= 0, got {self.ridges}.")
        if self.memory_mb < 1 or self.rows_per_column < 1 or self.steps < 0 or self.held_out < 0 or self.held_out == 1:
            raise ValueError(
                f"refit: expected memory_mb and rows_per_column >= 1, steps >= 0 and held_out 0 or >= 2, got {self}."
            )

    def most_rows(self, groups: int, outputs: int, inputs: int) -> int:
        """How many rows are taken of a layer: as many as are of use, and as memory has room for."""
        numbers = groups * (inputs + 6 * outputs)  # of a row: its inputs; and targets, outputs, errors, slopes
        fitting = self.memory_mb * 2**20 // (4 * numbers)
        return max(2, min(fitting, max(FEWEST_ROWS, self.rows_per_column * inputs)))


@dataclass(frozen=True)
class Positions:
    """Positions that are taken of one batch, and which of them are held out; both [rows]."""

    taken: Tensor
    held_out: Tensor


def valid_positions(output: Tensor, mask: Tensor | None) -> Tensor:
    """The positions of `output` [N, ..., O], in its flattened order, that belong to no padding by the mask [N, L]."""
    if mask is not None and output.dim() == 3 and output.shape[:2] == mask.shape:
        return mask.flatten().bool().nonzero()[:, 0]
    return torch.arange(output[..., 0].numel(), device=output.device)


def draw_positions(
    valid: list[Tensor],
    inputs: list[int],
    places: list[int],
    most: int,
    settings: RefitSettings,
    generator: torch.Generator,
    name: str,
) -> list[Positions]:
    """At most about `most` positions of all batches; held out are all those of every so-manyth input, or, of few
    inputs, every so-manyth position.

    Args:
        valid: of each batch. inputs, places: of each batch, how many inputs it has, and how many positions each of
            them.
        name: of the layer, for errors.

    Raises:
        ValueError: too few positions for any to be held out.
    """
    share = min(1.0, most / max(1, sum(map(len, valid))))
    by_input = sum(inputs) >= 2 * settings.held_out
    drawn, first_input, first_row = [], 0, 0
    for positions, count, of_each in zip(valid, inputs, places, strict=True):
        if share < 1:
            order = torch.randperm(len(positions), generator=generator)[: max(1, round(share * len(positions)))]
            positions = positions[order.sort().values.to(positions.device)]
        rows = torch.arange(len(positions), device=positions.device)
        number = first_input + positions // of_each if by_input else first_row + rows
        every = settings.held_out
        held_out = number % every == every - 1 if every else torch.zeros_like(rows, dtype=torch.bool)
        drawn.append(Positions(positions, held_out))
        first_input, first_row = first_input + count, first_row + len(positions)
    held = sum(int(part.held_out.sum()) for part in drawn)
    if held == sum(len(part.taken) for part in drawn) or (settings.held_out and not held):
        needed = max(2, settings.held_out)
        raise ValueError(
            f"calibration: expected at least {needed} inputs for {name}, got {sum(inputs)}; some hundreds are usual."
        )
    return drawn
