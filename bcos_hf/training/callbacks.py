"""Callbacks: the schedules of B and of the biases, and explanations along the way.

Source of the schedules: Arya et al., NeurIPS 2024 (arXiv 2411.00715) section 4. They depend on the step alone, so that a resumed run goes on where it was.
"""

import sys
from pathlib import Path

import torch
from transformers import TrainerCallback
from transformers.utils import logging

from bcos_hf.models.bcos_batch_norm import UncenteredBatchNorm2d
from bcos_hf.models.bcos_layers import Bcos
from bcos_hf.models.bcos_text import positions_of


logger = logging.get_logger(__name__)

SCHEDULES = ("immediate", "linear", "learnable")


class BScheduleCallback(TrainerCallback):
    """How B gets to its value.

    Args:
        schedule: "immediate" (the configured B from the start), "linear" (from 1, reached after `fraction` of the steps) or "learnable" (the model was
            made with learnable_b=True, and its optimiser does it).
        fraction: share of the training steps over which B rises.
    """

    def __init__(self, schedule: str = "immediate", fraction: float = 0.5) -> None:
        if schedule not in SCHEDULES or not 0 < fraction <= 1:
            raise ValueError(f"expected a schedule of {SCHEDULES} and 0 < fraction <= 1, got {schedule!r} and {fraction!r}.")
        self.schedule, self.fraction = schedule, fraction

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        """Check that the model fits the schedule."""
        if model.config.learnable_b != (self.schedule == "learnable"):
            raise ValueError(f"schedule {self.schedule!r} expects a model with learnable_b={self.schedule == 'learnable'}.")
        # of a model whose last training was broken off, the configuration's B is not where it was going
        self.configured = model._scheduled_b = getattr(model, "_scheduled_b", model.config.b)
        self._set(model, state)

    def on_step_begin(self, args, state, control, model=None, **kwargs) -> None:
        """Set B for this step."""
        self._set(model, state)

    def on_train_end(self, args, state, control, model=None, **kwargs) -> None:
        """Leave the configured B; or, where the best checkpoint was loaded, the B that it was measured with."""
        best = state.best_model_checkpoint if args.load_best_model_at_end else None
        share = 1.0
        if self.schedule == "linear" and best is not None:
            saved = type(model.config).from_pretrained(best).b
            pairs = zip(_listed(saved), _listed(self.configured), strict=True)
            share = next(((now - 1) / (end - 1) for now, end in pairs if end != 1), 1.0)
            if share < 1:
                logger.warning(f"{best} was measured as the best, with B = {saved} of {self.configured}: the model has its weights and its B.")
        self._set(model, state, share)
        for layer in _scheduled(model):
            layer.initial_b = layer.b  # as in a model that is loaded
        del model._scheduled_b

    def _set(self, model, state, share: float | None = None) -> None:
        """Set B of the layers, and of the configuration, which is what a saved model is loaded with."""
        if self.schedule != "linear":
            return
        share = min(1.0, state.global_step / max(1, self.fraction * state.max_steps)) if share is None else share
        for layer in _scheduled(model):
            layer.b = _on_the_way(layer.initial_b, share)
        now = [_on_the_way(b, share) for b in _listed(self.configured)]
        model.config.b = now if isinstance(self.configured, list) else now[0]


def _scheduled(model) -> list[Bcos]:
    """The layers whose B is a number that can be set."""
    return [layer for layer in model.modules() if isinstance(layer, Bcos) and isinstance(layer.b, float)]


def _on_the_way(b: float, share: float) -> float:
    return float(b) if share == 1 else 1 + share * (b - 1)


def _listed(b: float | list[float]) -> list[float]:
    return b if isinstance(b, list) else [b]


class BiasDecayCallback(TrainerCallback):
    """Shrinks every bias to exactly 0, in equal parts over the first `fraction` of the training steps, while it goes on learning.

    After step t biases are multiplied by s(t) / s(t - 1), s(t) = max(0, 1 - t / (fraction * steps)). The model needs keep_biases=True.
    """

    def __init__(self, fraction: float = 0.5) -> None:
        if not 0 < fraction <= 1:
            raise ValueError(f"BiasDecayCallback: expected 0 < fraction <= 1, got {fraction!r}.")
        self.fraction = fraction

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        """Check that there are biases."""
        if not getattr(model.config, "keep_biases", True):
            raise ValueError("BiasDecayCallback expects a model with keep_biases=True.")
        self.biases = [parameter for name, parameter in model.named_parameters() if name.endswith("bias")]
        if not self.biases:
            raise ValueError("BiasDecayCallback expects a model with biases, this one has none.")

    @torch.no_grad()
    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Multiply the biases."""
        before, now = (max(0.0, 1 - step / (self.fraction * state.max_steps)) for step in (state.global_step - 1, state.global_step))
        for bias in self.biases:
            bias.mul_(now / before if before else 0.0)


class SynchronisedNormsCallback(TrainerCallback):
    """Uncentred batch norms take the statistics of all processes in training, so that their number changes nothing but the speed."""

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        """Tell the norms."""
        for layer in model.modules():
            if isinstance(layer, UncenteredBatchNorm2d):
                layer.synchronised = True


class ExplanationCallback(TrainerCallback):
    """Write explanations of the same texts at every evaluation, output_dir/explanations/step-N.html, to see what the model comes to look at.

    Args:
        texts: that are explained, or pairs of texts. tokenizer: that of the model.
        max_length: tokens that a text is cut to, as in training; None: what model and tokenizer allow.
    """

    def __init__(self, texts: list, tokenizer, max_length: int | None = None) -> None:
        self.texts, self.tokenizer, self.max_length = texts, tokenizer, max_length

    def on_evaluate(self, args, state, control, model=None, **kwargs) -> None:
        """Explain and write, in the main process."""
        if not state.is_world_process_zero:
            return
        longest = min(self.tokenizer.model_max_length, positions_of(model.base_model), self.max_length or sys.maxsize)
        inputs = self.tokenizer(self.texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        explanation = model.explain(**inputs, tokenizer=self.tokenizer, return_weights=False)
        explanation.to_html(Path(args.output_dir, "explanations", f"step-{state.global_step}.html"), title=f"Step {state.global_step}")
