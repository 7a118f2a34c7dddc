"""The grid pointing game as it is played: grids of a model's own confident pictures, explained by one or several explainers, shares with intervals."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .bootstrap import bootstrap_interval
from .finite import check_finite
from .grid_pointing_game import grid_pointing_shares
from .grids import compose_grids, sample_grids


@torch.no_grad()
def predicted_logits(model, pixel_values: Tensor, batch_size: int = 50) -> Tensor:
    """Logits [M, C] of a classifier in evaluation mode for pictures [M, C, H, W]."""
    parts = tqdm(pixel_values.split(batch_size), desc="predicting", leave=False)
    made = torch.cat([model(pixel_values=part.to(model.device)).logits.cpu() for part in parts])
    check_finite(logits=made)
    return made


def play_grid_pointing_game(
    model,
    explainers: dict[str, Callable],
    pixel_values: Tensor,
    labels: Tensor,
    n_cells: int = 4,
    count: int = 50,
    smooth: int = 15,
    seed: int = 0,
    threshold: float = 0.5,
) -> dict[str, dict]:
    """Mean share of each explainer on the same grids, with its 95 % interval over grids, and the largest relative residual of its explanations.

    Args:
        model: a classifier in evaluation mode, which decides what is confident and correct.
        explainers: name -> a callable like `model.explain`, called with pixel_values [1, C, n h, n w] and targets [1, n_cells].
        pixel_values: [M, C, h, w], prepared for the model. labels: [M]. n_cells, count, seed, threshold: as in `sample_grids`.
            smooth: as in `grid_pointing_shares`.

    Returns:
        name -> {"mean", "low", "high", "max_relative_residual"}.

    Raises:
        ValueError: too few confident pictures for so many grids.
    """
    logits = predicted_logits(model, pixel_values)
    grids = sample_grids(logits.gather(1, labels[:, None])[:, 0], labels, n_cells, count, seed, threshold, logits.argmax(1))
    return play_grids(explainers, (compose_grids(pixel_values, grid[None]) for grid in grids), labels[grids], smooth, seed)


@torch.no_grad()
def play_grids(explainers: dict[str, Callable], pictures: Iterable[Tensor], targets: Tensor, smooth: int = 15, seed: int = 0) -> dict[str, dict]:
    """The same for known grids: `pictures` are composed, [1, C, n h, n w] each, made when they are asked for; `targets` [G, n_cells], their classes."""
    shares, residuals = {name: [] for name in explainers}, dict.fromkeys(explainers, 0.0)
    for picture, classes in zip(tqdm(pictures, desc="grid pointing game", total=len(targets)), targets, strict=True):
        for name, explain in explainers.items():
            made = explain(pixel_values=picture, targets=classes[None])
            shares[name].append(grid_pointing_shares(made.contributions, smooth).mean().cpu())
            residuals[name] = max(residuals[name], made.relative_residual.max().item())
    return {name: {**bootstrap_interval(torch.stack(values), seed=seed), "max_relative_residual": residuals[name]} for name, values in shares.items()}
