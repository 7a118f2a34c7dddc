"""B for each hidden layer by a budget: as high as a layer can have it without losing more than so much of what it
explains of its target."""

from collections.abc import Iterable, Sequence

from torch import Tensor
from transformers import PreTrainedModel

from bcos_hf.models import bcosify

from .refit import refit_


CANDIDATES = (1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5)


def choose_b(
    standard: PreTrainedModel,
    batches: Iterable[dict[str, Tensor]],
    r2_budget: float,
    candidates: Sequence[float] = CANDIDATES,
    pixels: tuple[Tensor, Tensor] | None = None,
    fields: dict | None = None,
    **settings,
) -> list[float]:
    """The highest B of `candidates` for each hidden layer that costs none of its fits more than `r2_budget` of R^2; the
    last value is for what lies outside.

    One pass: the network is fitted with B = 1, and on the way every layer is fitted with each candidate, too, and
    measured on held-out rows.

    Args:
        standard, batches, pixels, **settings: as in `refit_`. fields: configuration fields of the twin that is to be.

    Raises:
        ValueError: a budget below 0, or candidates without 1.
    """
    if not r2_budget >= 0 or 1.0 not in candidates or min(candidates) < 1:
        raise ValueError(
            f"choose_b: expected r2_budget >= 0 and candidates from 1 on, 1 among them; got {r2_budget!r} and {list(candidates)}."
        )
    twin = bcosify(standard, **{**(fields or {}), "b": 1.0, "weight_norm": "none"})
    found: dict[str, dict[float, float]] = {}
    refit_(twin, standard, batches, pixels, tried=(sorted(candidates), found), **settings)
    chosen = [max(candidates)] * (twin.config.hidden_layer_count + 1)
    for name, r2 in found.items():
        layer = twin._roles.layer_of(name)
        place = len(chosen) - 1 if layer is None else layer
        allowed = [b for b, value in r2.items() if value >= r2[1.0] - r2_budget]
        chosen[place] = min(chosen[place], max(allowed))
    return [float(b) for b in chosen]
