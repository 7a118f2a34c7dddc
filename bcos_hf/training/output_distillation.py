"""Distillation of the output: beside the labels the student learns the classes that a frozen teacher sees in the same input.

    loss = labels' loss + weight T^2 KL(softmax(teacher / T) || softmax(student / T))

Source: Hinton et al., 2015 (arXiv 1503.02531). Only logits are compared, no features.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BaseImageProcessor, PreTrainedModel

from .losses import CLASSES, problem_of


def output_divergence(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over rows; logits [N, C], in float32 at least. 0 of no row."""
    log_student, log_teacher = (F.log_softmax(logits.float() / temperature, dim=-1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="sum", log_target=True) / max(1, len(student))


class OutputTeacher(nn.Module):
    """A frozen teacher and what its classes weigh in the loss.

    Args:
        teacher: a classifier of the student's classes and inputs; it is frozen and put into evaluation mode.
        weight: of the divergence; >= 0. temperature: > 0.
        images: (scale, shift), each [C], that make the teacher's images of the student's (`between_processors`); None: they are the same.

    Raises:
        ValueError: a weight or a temperature that cannot be.
    """

    def __init__(self, teacher: PreTrainedModel, weight: float = 1.0, temperature: float = 2.0, images: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        if not weight >= 0 or not temperature > 0:
            raise ValueError(f"distillation: expected distillation_weight >= 0 and distillation_temperature > 0, got {weight!r} and {temperature!r}.")
        self.teacher = teacher.eval().requires_grad_(False)
        self.weight, self.temperature, self.images = weight, temperature, images

    @torch.no_grad()
    def logits(self, inputs: dict) -> Tensor:
        """The teacher's logits [N, C] for the student's inputs."""
        inputs = {name: value for name, value in inputs.items() if name != "labels"}
        if self.images is not None:
            scale, shift = (value.to(inputs["pixel_values"])[:, None, None] for value in self.images)
            inputs["pixel_values"] = inputs["pixel_values"] * scale + shift
        return self.teacher(**inputs).logits

    def forward(self, inputs: dict, student: Tensor, labels: Tensor, problem_type: str | None = None) -> Tensor:
        """What is added to the loss; rows with the label -100 do not count.

        Raises:
            ValueError: labels of another `problem_type` than one class an input, whose logits are no distribution.
        """
        if (problem := problem_of(student, labels, problem_type)) != CLASSES:
            raise ValueError(f"distillation: expected one class an input, as the logits are compared as distributions over classes; this is {problem}.")
        teacher = self.logits(inputs)
        if not labels.is_floating_point():
            student, teacher = student[labels != -100], teacher[labels != -100]
        return self.weight * output_divergence(student, teacher, self.temperature)


def check_teacher(teacher: PreTrainedModel, student: PreTrainedModel, new: set[str] = frozenset()) -> PreTrainedModel:
    """`teacher`, if it can teach `student`.

    Args:
        new: names of the teacher's tensors that are random.

    Raises:
        ValueError: other classes or another vocabulary than the student's, or a head that has not been trained.
    """
    name = teacher.config._name_or_path or type(teacher).__name__
    if any(tensor.endswith((".weight", ".bias")) for tensor in new):
        raise ValueError(
            f"distillation: {name} has weights that are new and random ({', '.join(sorted(new)[:3])}), so it has nothing to teach. Give a classifier of these "
            "classes with distillation_teacher, or set distillation_weight to 0."
        )
    for field, what in (("num_labels", "classes"), ("vocab_size", "tokens of its vocabulary")):
        own, theirs = (getattr(model.config, field, None) for model in (student, teacher))
        if own != theirs:
            raise ValueError(f"distillation: expected a teacher of {own} {what}, as the student has, got {theirs} of {name}.")
    return teacher


def between_processors(student: BaseImageProcessor, teacher: BaseImageProcessor) -> tuple[Tensor, Tensor] | None:
    """(scale, shift), each [C], with which scale * x + shift is what the teacher's processor makes of an image of which the student's makes x.

    None where both do the same. Sizes are the student's.
    """
    (mean, std), (other_mean, other_std) = _normalization(student), _normalization(teacher)
    if torch.equal(mean, other_mean) and torch.equal(std, other_std):
        return None
    return std / other_std, (mean - other_mean) / other_std


def _normalization(processor: BaseImageProcessor) -> tuple[Tensor, Tensor]:
    """Mean and deviation that a processor takes off values in [0, 1] and divides by."""
    if not processor.do_normalize:
        return torch.zeros(3), torch.ones(3)
    return torch.tensor(processor.image_mean), torch.tensor(processor.image_std)
