"""The head first: a classifier's head alone is trained on its cached inputs before the rest is trained, in seconds.

Otherwise a head that is new, or one that has to get used to another loss, is repaired by the first steps at the expense of the network in front of it (Kumar et
al., ICLR 2022, arXiv 2202.10054). A new head starts from a ridge regression of the labels: random B-cos rows as small as they are initialized give logits that
vanish, as |w| enters with the power B.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.utils import logging

from bcos_hf.calibration import RefitSettings
from bcos_hf.calibration.objectives import Objective
from bcos_hf.calibration.solving import Rows, fit_rows
from bcos_hf.models import FAMILIES
from bcos_hf.models.bcos_layers import Bcos
from bcos_hf.models.modeling_bcos import BcosModelMixin

from .losses import bce_loss


logger = logging.get_logger(__name__)

RELATIVE_RATE = 0.03  # learning rate, in parts of the root mean square of the head's weights
BATCH = 256
HELD_OUT = 5  # every so-manyth row chooses the step that is kept
FEWEST = 2 * HELD_OUT
CHECKS = 15
SCALES = [2.0**power for power in range(-3, 15)]  # of the closed-form logits
MOST_ROWS = 16384  # of the regression, where a head sees many positions of an image


@dataclass(frozen=True)
class HeadFirst:
    """What the training of the head did.

    Attributes:
        rows: that were trained on. held_out: others. before, after: the loss on the latter.
    """

    rows: int
    held_out: int
    before: float
    after: float


def head_of(model: PreTrainedModel) -> tuple[str, nn.Linear]:
    """The layer that makes the class logits, and its name, in a B-cos model or in a standard one that has a B-cos twin.

    Raises:
        ValueError: a model without one.
    """
    twin = type(model) if isinstance(model, BcosModelMixin) else getattr(FAMILIES.get(model.config.model_type), f"Bcos{type(model).__name__}", None)
    modules = dict(model.named_modules())
    names = () if twin is None else twin.roles.logits
    found = [(name, modules[name]) for name in names if isinstance(modules.get(name), nn.Linear)]
    if not found:
        raise ValueError(f"head_first_steps: expected a classifier of a family that has a B-cos twin, got a {type(model).__name__}. Set it to 0.")
    return found[-1]


@torch.no_grad()
def head_inputs(model: PreTrainedModel, head: nn.Module, batches: Iterable[dict]) -> tuple[Tensor, Tensor]:
    """What goes into the head, [N, C], or [N, positions, C] where it is the mean over positions that counts, and the labels [N].

    Args:
        batches: what the model takes, with labels; rows with the label -100 are left out.
    """
    seen, kept = [], []
    hook = head.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    training = model.training
    try:
        model.eval()
        for batch in tqdm(batches, desc="inputs of the head"):
            batch = {name: value.to(model.device) for name, value in batch.items()}
            labels = batch.pop("labels")
            logits = model(**batch).logits
            x, output = seen.pop()
            if labels.dim() != 1 or labels.is_floating_point():
                raise ValueError(f"head_first_steps: expected class numbers [N] as labels, got {labels.dtype} {list(labels.shape)}. Set it to 0.")
            counted = labels != -100
            kept.append((_counting(x, output, logits, model.config)[counted], labels[counted]))
    finally:
        hook.remove()
        model.train(training)
    if not kept:
        raise ValueError("head_first_steps: expected labelled training rows, got none.")
    return torch.cat([x for x, _ in kept]), torch.cat([labels for _, labels in kept])


def _counting(x: Tensor, output: Tensor, logits: Tensor, config) -> Tensor:
    """The inputs that the logits depend on: all, or, in a decoder, the one position whose output the model takes."""
    if output.dim() == logits.dim() or getattr(config, "head_before_pooling", False):
        return x
    distance = (output - logits[:, None]).abs().sum(-1)
    return x[torch.arange(len(x), device=x.device), distance.argmin(1)]


def train_head_(
    model: PreTrainedModel,
    batches: Iterable[dict],
    off_labels: str = "zero",
    steps: int = 300,
    seed: int = 0,
    new: Iterable[str] = (),
    smoothing: float = 0.0,
) -> HeadFirst:
    """Train the head of `model`, in place, by `bce_loss`; all else stays as it is. The best step on held-out rows is kept.

    Args:
        batches: what the model takes, with labels. off_labels: as of `bce_loss`. steps: of Adam, with a cosine schedule, 256 rows each.
        seed: of the order of the rows. new: names of the model's tensors that are random; if the head's are among them it starts from a regression.
        smoothing: as of `bce_loss`.

    Raises:
        ValueError: a model without a linear head, too few rows, a label that is no class.
    """
    name, head = head_of(model)
    x, labels = head_inputs(model, head, batches)
    if len(x) < FEWEST:
        raise ValueError(f"head_first_steps: expected at least {FEWEST} labelled training rows, got {len(x)}; some hundreds are usual.")
    held = torch.arange(len(x), device=x.device) % HELD_OUT == HELD_OUT - 1
    run = _HeadFirst(head, x, labels, held, off_labels, smoothing)
    before = run.loss(held)
    if f"{name}.weight" in set(new):
        run.start()
    after = run.train(steps, seed)
    made = HeadFirst(int((~held).sum()), int(held.sum()), before, after)
    logger.info(f"head first: {name}, loss on {made.held_out} held-out rows {before:.4f} before, {after:.4f} after.")
    return made


class _HeadFirst:
    """One training of a head, while it runs."""

    def __init__(self, head: nn.Linear, x: Tensor, labels: Tensor, held: Tensor, off_labels: str, smoothing: float = 0.0) -> None:
        self.head, self.x, self.labels, self.held, self.off_labels, self.smoothing = head, x, labels, held, off_labels, smoothing
        self.tensors = [tensor for tensor in (head.weight, head.bias) if tensor is not None]

    def _mean_loss(self, rows: Tensor) -> Tensor:
        logits = self.head(self.x[rows])
        return bce_loss(logits.mean(1) if logits.dim() == 3 else logits, self.labels[rows], self.off_labels, smoothing=self.smoothing)

    @torch.no_grad()
    def loss(self, rows: Tensor) -> float:
        """The mean over `rows`."""
        return self._mean_loss(rows).item()

    @torch.no_grad()
    def start(self) -> None:
        """A ridge regression of the centered one-hot labels, scaled so that the loss is least; not of unit rows, whose scale is fixed, nor of MaxOut."""
        bcos = isinstance(self.head, Bcos)
        if bcos and (self.head.weight_norm == "unit" or self.head.max_out > 1):
            return
        b = max(1.0, float(self.head.b)) if bcos else 1.0
        classes = self.head.weight.shape[0]
        x = self.x if self.x.dim() == 3 else self.x[:, None]
        x = x[:, self._positions(x)]
        target = F.one_hot(self.labels, classes).to(x.dtype)
        target = (target - target.mean(0))[:, None].expand(-1, x.shape[1], -1).flatten(0, 1)[None]
        held = self.held[:, None].expand(-1, x.shape[1]).flatten()
        x = x.flatten(0, 1)[None]
        shift = x.new_zeros(x.shape[-1]) if bcos or self.head.bias is None else x.mean((0, 1))
        norm = self.head._input_norm(x) if b > 1 else None
        rows = Rows(x - shift, norm, Objective(target, target))
        zero = self.head.weight.detach().new_zeros(1, *self.head.weight.shape)
        fitted = fit_rows(rows.take(~held), rows.take(held), zero, zero, b, RefitSettings.ridges, steps=0)
        if fitted.ridge is None:  # nothing speaks for a class
            return
        kept = [tensor.detach().clone() for tensor in self.tensors]
        scale = min(SCALES, key=lambda scale: self._scaled(fitted.weights[0], shift, scale, b))
        if self._scaled(fitted.weights[0], shift, scale, b) == math.inf:
            for tensor, value in zip(self.tensors, kept, strict=True):
                tensor.copy_(value)

    def _positions(self, x: Tensor) -> Tensor:
        """Evenly chosen positions, so that the rows of all images are not too many."""
        most = max(1, MOST_ROWS // len(x))
        return torch.linspace(0, x.shape[1] - 1, min(most, x.shape[1]), device=x.device).round().long()

    def _scaled(self, weights: Tensor, shift: Tensor, scale: float, b: float) -> float:
        """Set the head to `weights` whose logits are multiplied by `scale`; returns the loss."""
        weights = weights * scale ** (1 / b)
        self.head.weight.copy_(weights)
        if self.head.bias is not None:
            prior = 0.0 if isinstance(self.head, Bcos) else -math.log(max(1, len(weights) - 1))
            self.head.bias.copy_(prior - weights @ shift)
        loss = self.loss(~self.held)
        return loss if math.isfinite(loss) else math.inf

    def train(self, steps: int, seed: int) -> float:
        """Adam with a cosine schedule; returns the loss on held-out rows of the step that is kept."""
        generator = torch.Generator().manual_seed(seed)
        rows = (~self.held).nonzero()[:, 0].cpu()
        rate = RELATIVE_RATE * self.head.weight.detach().square().mean().sqrt().item()
        frozen = [tensor.requires_grad for tensor in self.tensors]
        optimizer = torch.optim.Adam([tensor.requires_grad_(True) for tensor in self.tensors], lr=rate)
        best, waiting, every = (self.loss(self.held), self._state()), rows[:0], max(1, steps // CHECKS)
        with torch.enable_grad():
            for step in range(steps):
                if not len(waiting):
                    waiting = rows[torch.randperm(len(rows), generator=generator)]
                batch, waiting = waiting[:BATCH].to(self.x.device), waiting[BATCH:]
                optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
                optimizer.zero_grad()
                self._mean_loss(batch).backward()
                optimizer.step()
                if (step + 1) % every == 0 or step + 1 == steps:
                    loss = self.loss(self.held)
                    best = min(best, (loss, self._state()), key=lambda pair: pair[0])
        optimizer.zero_grad()
        with torch.no_grad():
            for tensor, value, trained in zip(self.tensors, best[1], frozen, strict=True):
                tensor.copy_(value)
                tensor.requires_grad_(trained)
        return best[0]

    def _state(self) -> list[Tensor]:
        return [tensor.detach().clone() for tensor in self.tensors]
