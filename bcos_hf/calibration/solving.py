"""A B-cos layer fitted to a target by least squares, without an intercept.

The scaling is inverted, so that the layer is linear in its weights: y = lin |lin / n|^(B-1) is t where lin = g =
sign(t) |t|^(1/B) n^((B-1)/B). With S = mean x x^T and C = mean g x^T,

    W = a W0 + (C - a W0 S) (S + ridge mean(diag S) I)^-1        a: the least-squares scale of each row; or 0

is the ridge regression towards the pretrained rows W0, or towards 0. Which of them, and which ridge, is chosen by rows
that are held out. Then the error behind the activation is descended, W <- W - step P S^-1 with momentum, a step size
for each row, and what is best on the held-out rows stays.

Sources of the parts: least-squares reconstruction layer by layer, He et al., ICCV 2017 (arXiv 1707.06168); bias
absorption, Nagel et al., ICCV 2019 (arXiv 1906.04721); data-dependent initialization, Kraehenbuehl et al., ICLR 2016
(arXiv 1511.06856).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bcos_hf.models.bcos_scaling import cosine_factor

from .objectives import Objective


LEAST_RIDGE = 1e-12
BLOCK = 2**19  # outputs computed at a time: what they go through stays in the processor's cache
MOMENTUM = 0.5
PATIENCE, WORTHWHILE = 3, 0.999  # descent ends after so many steps that each lower the held-out error by less
FASTER, SLOWER = 1.2, 0.4  # of a row's step size, after a step that lowered its error, and after one that was undone


@dataclass
class Rows:
    """What a layer reads and is to give: x [groups, rows, D]; n [1 or groups, rows, 1], None for a linear layer."""

    x: Tensor
    n: Tensor | None
    objective: Objective

    def take(self, rows: Tensor) -> "Rows":
        """Some of them."""
        return Rows(self.x[:, rows], None if self.n is None else self.n[:, rows], self.objective.take(rows))

    def blocks(self) -> Iterator[tuple["Rows", float]]:
        """All of them, some at a time, each with its share of the whole."""
        groups, rows, outputs = self.objective.target.shape
        size = max(1, BLOCK // (groups * outputs))
        for first in range(0, rows, size):
            block = self.take(slice(first, first + size))
            yield block, block.x.shape[1] / rows

    def mean_with_inputs(self, values: Tensor) -> Tensor:
        """The weighted mean of values x^T, [groups, O, D], of [groups, rows, O]."""
        weight = self.objective.weight
        return (values if weight is None else values * weight).mT @ self.x / self.x.shape[1]

    def output(self, weights: Tensor, b: float) -> tuple[Tensor, Tensor | None]:
        """y [groups, rows, O] of weights [groups, O, D], and its cosine factor, None where B = 1."""
        lin = self.x @ weights.mT
        if b == 1:
            return lin, None
        factor = cosine_factor(lin, self.n, None, b)
        return lin * factor, factor

    def loss(self, weights: Tensor, b: float) -> Tensor:
        """Mean squared error of each unit, [groups, 1, O]."""
        return sum(share * block.objective.loss(block.output(weights, b)[0]) for block, share in self.blocks())


@dataclass
class Fitted:
    """The weights found, [groups, O, D], and how good they are.

    Attributes:
        r2, r2_before: part of the goal's variance that is met on held-out rows, after the fit and before it. constant:
            R^2 of the best prediction of 1 by the input.
        ridge: the one chosen; None: the weights stay. towards: "pretrained" rows, or "zero".
    """

    weights: Tensor
    r2: float
    r2_before: float
    constant: float
    ridge: float | None
    towards: str


def inverted(target: Tensor, n: Tensor | None, b: float) -> Tensor:
    """g, the linear response whose scaled output is `target`."""
    return target if b == 1 else target.sign() * target.abs().pow(1 / b) * n.pow((b - 1) / b)


def fit_rows(
    train: Rows, held_out: Rows, start: Tensor, pretrained: Tensor, b: float, ridges: Sequence[float], steps: int
) -> Fitted:
    """The best weights for `held_out` of those that are fitted to `train`.

    Args:
        start: [groups, O, D], the weights before the fit, which stay where nothing is better. pretrained: W0, as the
            standard layer has them.
        ridges: to choose from, in parts of the mean of diag S. steps: of descent behind the activation, at most.
    """
    before = held_out.loss(start, b).sum()
    moments = _Moments(train, b)
    best = (before, start, None, "")
    for towards, base in (("pretrained", moments.scaled(pretrained)), ("zero", torch.zeros_like(pretrained))):
        lacking, last = moments.lacking(base), torch.inf
        for ridge in sorted(ridges, reverse=True):  # each costs a factorization; past the best one they get worse
            weights = base + moments.solve(lacking, ridge)
            loss = held_out.loss(weights, b).sum()
            if loss > last:
                break
            last = loss
            if loss < best[0]:
                best = (loss, weights, ridge, towards)
    loss, weights, ridge, towards = best
    if (
        ridge is not None
        and steps
        and (b != 1 or train.objective.activation is not None or train.objective.factor is not None)
    ):
        loss, weights = _descend(train, held_out, moments, weights, loss, b, ridge, steps)
    variance = held_out.objective.variance().sum().clamp_min(torch.finfo(weights.dtype).tiny)
    return Fitted(
        weights, (1 - loss / variance).item(), (1 - before / variance).item(), moments.constant(), ridge, towards
    )


class _Moments:
    """S = mean x x^T with its Cholesky factors, and C = mean g x^T; in float64, in which no ridge is too small for S."""

    def __init__(self, rows: Rows, b: float) -> None:
        self.s, self.c, self.mean = 0.0, 0.0, 0.0
        for block, share in rows.blocks():
            goal = inverted(block.objective.target, block.n, b)
            self.s = self.s + share * block.mean_with_inputs(block.x).double()
            self.c = self.c + share * block.mean_with_inputs(goal).double()
            self.mean = self.mean + share * block.mean_with_inputs(torch.ones_like(goal[..., :1])).double()
        self.size = self.s.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(torch.finfo(rows.x.dtype).tiny)
        self.factors: dict[float, Tensor] = {}

    def scaled(self, weights: Tensor) -> Tensor:
        """Rows of `weights`, [groups, O, D], each by the factor that brings it nearest to the goal."""
        wide = weights.double()
        squares = (wide @ self.s * wide).sum(-1, keepdim=True)
        scale = (wide * self.c).sum(-1, keepdim=True) / squares.clamp_min(torch.finfo(weights.dtype).tiny)
        return (scale * wide).to(weights.dtype)

    def lacking(self, weights: Tensor) -> Tensor:
        """mean (g - W x) x^T, [groups, O, D]."""
        return (self.c - weights.double() @ self.s).to(weights.dtype)

    def solve(self, right: Tensor, ridge: float, exactly: bool = True) -> Tensor:
        """right (S + ridge mean(diag S) I)^-1, [groups, O, D]; not `exactly`: in the precision of `right`, at half the
        cost."""
        if ridge not in self.factors:
            self.factors[ridge] = self._factor(ridge)
        if not exactly:
            return torch.cholesky_solve(right.mT, self.factors[ridge].to(right.dtype)).mT
        return torch.cholesky_solve(right.mT.double(), self.factors[ridge]).mT.to(right.dtype)

    def _factor(self, ridge: float) -> Tensor:
        """The Cholesky factor; inputs of a norm span one dimension less than they have, for which a ridge of 0 is
        raised until there is one."""
        identity = torch.eye(self.s.shape[-1], dtype=self.s.dtype, device=self.s.device)
        ridge = max(ridge, LEAST_RIDGE)
        factor, failed = torch.linalg.cholesky_ex(self.s + (ridge * self.size)[:, None, None] * identity)
        return self._factor(100 * ridge) if failed.any() else factor

    def constant(self) -> float:
        """R^2 of the prediction of 1: how much of a constant the input holds, the mean over groups."""
        return (self.solve(self.mean, min(self.factors)) * self.mean).sum(-1).mean().clamp(max=1).item()


def _descend(
    train: Rows,
    held_out: Rows,
    moments: _Moments,
    weights: Tensor,
    held_loss: Tensor,
    b: float,
    ridge: float,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Lower the error behind the activation; returns the lowest held-out loss that was seen and its weights."""
    best = (held_loss, weights)
    loss, direction = _loss_and_direction(train, moments, weights, b, ridge)
    size = torch.full_like(loss.mT, 0.7)
    velocity, waited = torch.zeros_like(weights), 0
    for _ in range(steps):
        moved = MOMENTUM * velocity - size * direction
        tried_loss, tried_direction = _loss_and_direction(train, moments, weights + moved, b, ridge)
        better = (tried_loss < loss).mT
        weights = torch.where(better, weights + moved, weights)
        velocity = torch.where(better, moved, 0)
        direction = torch.where(better, tried_direction, direction)
        loss = torch.minimum(loss, tried_loss)
        size = torch.where(better, size * FASTER, size * SLOWER)
        held_loss = held_out.loss(weights, b).sum()
        waited = 0 if held_loss < WORTHWHILE * best[0] else waited + 1
        if held_loss < best[0]:
            best = (held_loss, weights)
        if waited == PATIENCE:
            break
    return best


def _loss_and_direction(
    rows: Rows, moments: _Moments, weights: Tensor, b: float, ridge: float
) -> tuple[Tensor, Tensor]:
    """The loss of each unit [groups, 1, O], and its gradient [groups, O, D], over the curvature: S times the mean
    squared slope."""
    loss = gradient = curvature = 0.0
    for block, share in rows.blocks():
        y, factor = block.output(weights, b)
        error, slope = block.objective.error_and_slope(y)
        if factor is not None:
            slope = slope * factor.mul_(b)
        loss = loss + share * block.objective.mean(error.square())
        gradient = gradient + share * block.mean_with_inputs(error * slope)
        curvature = curvature + share * block.objective.mean(slope.square())
    curvature = curvature.clamp_min(torch.finfo(curvature.dtype).tiny)
    return loss, moments.solve(gradient, ridge, exactly=False) / curvature.mT
