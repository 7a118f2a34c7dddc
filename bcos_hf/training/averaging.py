"""An exponential moving average of the weights, which is evaluated and saved in place of the last weights.

    average <- d average + (1 - d) weights after every step t,    d = min(decay, (1 + t) / (10 + t))

The lower d of the first steps keeps the random start from weighing on a short training. Source: Polyak & Juditsky, 1992; Izmailov et al., UAI 2018
(arXiv 1803.05407).
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback

from bcos_hf.models.bcos_writing import written_whole


FILE = "average.safetensors"


def decay_at(step: int, decay: float) -> float:
    """Weight of the old average after `step` optimiser steps (counted from 1)."""
    return min(decay, (1 + step) / (10 + step))


class AveragingCallback(TrainerCallback):
    """Keeps the average of `model`'s parameters and buffers, with a Trainer.

    Evaluations during training see the average; checkpoints hold the last weights and, beside them, the average (average.safetensors), so that training
    can be resumed; at the end the average takes the model's place.

    Args:
        decay: d, of long trainings.

    Raises:
        ValueError: decay outside (0, 1), or on resuming: a checkpoint without an average; load_best_model_at_end, which would load last weights.
    """

    def __init__(self, decay: float = 0.9999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"AveragingCallback: expected 0 < decay < 1, got {decay!r}.")
        self.decay, self.average, self.swapped = decay, {}, False

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        """Start from the weights, or from the checkpoint that training goes on from."""
        if args.load_best_model_at_end:
            raise ValueError("AveragingCallback: expected load_best_model_at_end=False; a checkpoint's model has the last weights, not their average.")
        self.swapped, self.average = False, {name: tensor.detach().clone() for name, tensor in _tensors(model).items()}
        if state.global_step:
            self._load(checkpoint_folder(args, state) / FILE)

    @torch.no_grad()
    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        """Take up the new weights; swap them for the average where an evaluation follows."""
        old = decay_at(state.global_step, self.decay)
        for name, tensor in _tensors(model).items():
            average = self.average[name]
            if average.is_floating_point():
                average.lerp_(tensor.to(average.dtype), 1 - old)
            else:
                average.copy_(tensor)
        self._swap_before(control, model)

    def on_epoch_end(self, args, state, control, model=None, **kwargs) -> None:
        """Swap where an evaluation follows."""
        self._swap_before(control, model)

    def on_evaluate(self, args, state, control, model=None, **kwargs) -> None:
        """Back to the last weights, to go on training."""
        if self.swapped:
            self._swap(model)

    def on_save(self, args, state, control, **kwargs) -> None:
        """Write the average into the checkpoint."""
        if state.is_world_process_zero:
            with written_whole(Path(args.output_dir, f"checkpoint-{state.global_step}", FILE)) as path:
                save_file(self.average, path)

    def on_train_end(self, args, state, control, model=None, **kwargs) -> None:
        """Leave the average in the model."""
        self._swap(model)
        self.swapped = False

    def _swap_before(self, control, model: nn.Module) -> None:
        if control.should_evaluate and not self.swapped:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        # in place: optimisers and wrappers hold on to the tensors
        for name, tensor in _tensors(model).items():
            last = tensor.clone()
            tensor.copy_(self.average[name])
            self.average[name].copy_(last)
        self.swapped = not self.swapped

    def _load(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"AveragingCallback: expected the average of the weights in {path}, which is not there. Resume from a checkpoint that has one.")
        for name, tensor in load_file(path).items():
            self.average[name].copy_(tensor)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, shared ones once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def checkpoint_folder(args, state) -> Path:
    """The checkpoint that training goes on from."""
    given = args.resume_from_checkpoint
    return Path(given) if given and Path(given).is_dir() else Path(args.output_dir, f"checkpoint-{state.global_step}")
