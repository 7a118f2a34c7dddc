"""Losses between the embeddings of a student and of its frozen teacher, of the same pictures.

Sources: the SigLIP loss, Zhai et al., ICCV 2023 (arXiv 2303.15343) algorithm 1, with scale 10 and bias -10 held fixed, as B-cosified CLIP is trained (Arya et
al., NeurIPS 2024, arXiv 2411.00715), or learned; temperature-free cosine and squared distances as usual.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def siglip_loss(
    student: Tensor, teacher: Tensor, own: Tensor | None = None, counted: Tensor | None = None, scale: float | Tensor = 10.0, bias: float | Tensor = -10.0,
) -> Tensor:  # fmt: skip
    """Mean over students of the sum over teachers of -log sigmoid(+-(scale cos + bias)), + for the same picture, - for another.

    Args:
        student: [N, D]. teacher: [M, D], of the same and of more pictures (of other processes).
        own: [N], the teacher row of each student; None: the same number. counted: [M] bools, rows that are pictures at all; None: all.
    """
    own = torch.arange(len(student), device=student.device) if own is None else own
    cosines = F.normalize(student.float(), dim=-1) @ F.normalize(teacher.float(), dim=-1).T
    sign = 2 * F.one_hot(own, len(teacher)).to(cosines.dtype) - 1
    losses = -F.logsigmoid(sign * (scale * cosines + bias))
    if counted is None:
        return losses.sum() / len(student)
    return (losses * counted[own][:, None] * counted[None]).sum() / counted[own].sum().clamp_min(1)


def _mean(values: Tensor, counted: Tensor | None) -> Tensor:
    return values.mean() if counted is None else (values * counted).sum() / counted.sum().clamp_min(1)


def _pairs(student: Tensor, teacher: Tensor, own: Tensor | None, counted: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    own = torch.arange(len(student), device=student.device) if own is None else own
    return student.float(), teacher.float()[own], None if counted is None else counted[own]


def cosine_loss(student: Tensor, teacher: Tensor, own: Tensor | None = None, counted: Tensor | None = None) -> Tensor:
    """Mean of 1 - cosine; arguments as `siglip_loss`."""
    student, teacher, counted = _pairs(student, teacher, own, counted)
    return _mean(1 - F.cosine_similarity(student, teacher, dim=-1), counted)


def mse_loss(student: Tensor, teacher: Tensor, own: Tensor | None = None, counted: Tensor | None = None) -> Tensor:
    """Mean squared difference of the embeddings as they are; arguments as `siglip_loss`."""
    student, teacher, counted = _pairs(student, teacher, own, counted)
    return _mean((student - teacher).square().mean(-1), counted)


EMBEDDING_LOSSES = {"siglip": siglip_loss, "cosine": cosine_loss, "mse": mse_loss}


def prompt_divergence(student: Tensor, teacher: Tensor, class_embeds: Tensor, scale: float = 100.0) -> Tensor:
    """Mean Kullback-Leibler divergence of the student's distribution over prompts from the teacher's, of embeddings [N, D] and [C, D]; scale: CLIP's."""
    student, teacher = (F.log_softmax(scale * F.normalize(x.float(), dim=-1) @ class_embeds.to(x.device).float().T, dim=-1) for x in (student, teacher))
    return F.kl_div(student, teacher, log_target=True, reduction="batchmean")
