"""The scale and the bias of the SigLIP loss, learned beside the model, as SigLIP itself does it (Zhai et al., ICCV 2023, arXiv 2303.15343, section 3.2).

They belong to the loss and not to the model, so that they are kept in a checkpoint's folder (siglip.safetensors) and leave the saved model alone.
"""

import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from bcos_hf.models.bcos_writing import written_whole

from .averaging import checkpoint_folder


FILE = "siglip.safetensors"


class LearnedScale(TrainerCallback):
    """Parameters t and b, of which scale = exp(t) and bias = b are read.

    Args:
        scale, bias: where they start.

    Raises:
        ValueError: a scale that is not positive; on resuming: a checkpoint without them.
    """

    def __init__(self, scale: float = 10.0, bias: float = -10.0) -> None:
        if not scale > 0:
            raise ValueError(f"loss_scale: expected a number > 0 to learn from, got {scale!r}.")
        self.parameters = {"log_scale": nn.Parameter(torch.tensor(math.log(scale))), "bias": nn.Parameter(torch.tensor(float(bias)))}

    def options(self) -> dict[str, Tensor]:
        """What `siglip_loss` takes."""
        return {"scale": self.parameters["log_scale"].exp(), "bias": self.parameters["bias"]}

    def join(self, trainer: Trainer) -> None:
        """Learn with the trainer's optimiser, without weight decay; the processes' gradients are averaged, as those of the model are."""
        for parameter in self.parameters.values():
            parameter.data = parameter.data.to(trainer.args.device)
            if trainer.accelerator.num_processes > 1:
                parameter.register_hook(lambda grad: trainer.accelerator.reduce(grad.clone(), "mean"))
        trainer.optimizer.add_param_group({"params": list(self.parameters.values()), "weight_decay": 0.0})

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Go on from the checkpoint's values."""
        if state.global_step:
            self._load(checkpoint_folder(args, state) / FILE)

    def on_train_end(self, args, state, control, **kwargs) -> None:
        """Where the best checkpoint was loaded, it was measured with its own values."""
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            self._load(Path(state.best_model_checkpoint, FILE))

    @torch.no_grad()
    def _load(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"LearnedScale: expected the scale and the bias of the loss in {path}, which is not there. Resume with learn_scale false.")
        for name, value in load_file(path).items():
            self.parameters[name].copy_(value)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Forget the gradients, as Trainer has the model alone do it."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def on_save(self, args, state, control, **kwargs) -> None:
        """Write them into the checkpoint."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
            with written_whole(folder / FILE) as path:
                save_file({name: value.detach().clone() for name, value in self.parameters.items()}, path)
