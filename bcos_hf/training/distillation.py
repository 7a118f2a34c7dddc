"""A trainer that makes a student's image embeddings those of a frozen teacher, from pictures alone. Where there are labels it measures zero-shot accuracy."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bcos_hf.data.image_inputs import LEFT_OUT
from bcos_hf.metrics.zero_shot import embeddings_of

from .embedding_losses import EMBEDDING_LOSSES, prompt_divergence
from .learned_scale import LearnedScale
from .trainer import BcosTrainer


class OtherImages(nn.Module):
    """A teacher of images that are prepared otherwise than its own.

    Args:
        teacher: a model with `get_image_features`, or an image tower. images: (scale, shift), each [C], that make its images of those given.
    """

    def __init__(self, teacher: nn.Module, images: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.teacher, self.images = teacher, images

    def get_image_features(self, pixel_values: Tensor, **inputs):
        """As the teacher's."""
        scale, shift = (value.to(pixel_values)[:, None, None] for value in self.images)
        return getattr(self.teacher, "get_image_features", self.teacher)(pixel_values=pixel_values * scale + shift, **inputs)


class DistillationTrainer(BcosTrainer):
    """BcosTrainer with a loss between embeddings; the teacher's of all processes are the negatives.

    Args:
        teacher: a model with `get_image_features`, or an image tower; it is frozen and put into evaluation mode.
        loss: a name in EMBEDDING_LOSSES. loss_options: scale and bias of "siglip". learn_scale: they are where these start, and are learned beside the model.
        class_embeds: [C, D] of length 1, the classes of labelled evaluation pictures; None: the loss is all that is measured.
        prompt_weight: of `prompt_divergence` beside the loss.
    """

    def __init__(
        self, *args, teacher: nn.Module, loss: str = "siglip", loss_options: dict | None = None, class_embeds: Tensor | None = None, prompt_weight: float = 0.0,
        learn_scale: bool = False, **kwargs,
    ) -> None:  # fmt: skip
        super().__init__(*args, **kwargs)
        if self.compute_loss_func is not None or self.args.label_smoothing_factor:
            raise ValueError("compute_loss_func, label_smoothing_factor: expected neither, as the loss is between embeddings and labels have no part in it.")
        # the evaluation's batches have labels alone, the training's may have teacher_embeds, which the model's forward() does not take
        self.label_names, self.args.remove_unused_columns = ["labels"], False
        if loss not in EMBEDDING_LOSSES:
            raise ValueError(f"loss: expected one of {sorted(EMBEDDING_LOSSES)}, got {loss!r}.")
        if prompt_weight and class_embeds is None:
            raise ValueError("prompt_weight: expected class names beside it, as it compares distributions over prompts.")
        self.teacher = teacher.eval().requires_grad_(False).to(self.args.device)
        self.embedding_loss, self.loss_options = EMBEDDING_LOSSES[loss], loss_options or {}
        self.class_embeds, self.prompt_weight = class_embeds, prompt_weight
        if learn_scale and loss != "siglip":
            raise ValueError(f"learn_scale: expected loss 'siglip', which has a scale and a bias, got {loss!r}.")
        self.learned = LearnedScale(**self.loss_options) if learn_scale else None
        if self.learned:
            self.add_callback(self.learned)

    def create_optimizer(self, *args, **kwargs):
        """As Trainer's; what the loss learns joins it."""
        new = self.optimizer is None
        super().create_optimizer(*args, **kwargs)
        if new and self.learned:
            self.learned.join(self)
        return self.optimizer

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """As Trainer's, with the scale and the bias where they are learned."""
        learned = {f"loss_{name}": value.item() for name, value in self.learned.options().items()} if self.learned and "loss" in logs else {}
        super().log({**logs, **learned}, *args, **kwargs)

    @torch.no_grad()
    def teacher_embeds(self, pixel_values: Tensor) -> Tensor:
        """Embeddings [N, D] of the teacher, not normalised."""
        tower = getattr(self.teacher, "get_image_features", self.teacher)
        return embeddings_of(tower(pixel_values=pixel_values)).clone()

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss between embeddings; outputs are cosines with the classes, where there are any."""
        pixel_values, labels, teacher = inputs["pixel_values"], inputs.pop("labels"), inputs.pop("teacher_embeds", None)
        # forward() is what accelerate wraps; a plain CLIP's wants texts, too
        tower = model if hasattr(model, "explain") else getattr(model, "get_image_features", model)
        student = embeddings_of(tower(pixel_values=pixel_values))
        teacher = self.teacher_embeds(pixel_values) if teacher is None else teacher
        counted, own = labels != LEFT_OUT, torch.arange(len(labels), device=labels.device)
        everyone, everyone_counted = teacher, counted
        if model.training and self.accelerator.num_processes > 1:
            everyone, everyone_counted = self.accelerator.gather((teacher, counted))
            own = own + self.accelerator.process_index * len(labels)
        loss = self.embedding_loss(student, everyone, own, everyone_counted, **(self.learned.options() if self.learned else self.loss_options))
        if self.prompt_weight:
            loss = loss + self.prompt_weight * prompt_divergence(student[counted], teacher[counted], self.class_embeds)
        if not return_outputs:
            return loss
        embeds = F.normalize(student, dim=-1)
        return loss, {"logits": embeds if self.class_embeds is None else embeds @ self.class_embeds.to(student).T}
