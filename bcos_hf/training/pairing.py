"""Two pretrained towers become a CLIP-style model by their projections alone: pictures and captions of one class are drawn together.

An honest stand-in where no pretrained CLIP can be had: the towers are frozen, as the image tower is in LiT (Zhai et al., CVPR 2022, arXiv 2111.07991).
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm


@torch.no_grad()
def image_tower_features(model, pixel_values: Iterable[Tensor]) -> Tensor:
    """What the image tower of a dual encoder gives to its projection, [M, D], of batches [N, C, H, W]."""
    batches = tqdm(pixel_values, desc="features of pictures")
    return torch.cat([model.pooled_image(model.vision_model(pixel_values=batch).last_hidden_state) for batch in batches])


@torch.no_grad()
def text_tower_features(model, tokenizer, texts: list[str]) -> Tensor:
    """What the text tower of a dual encoder gives to its projection, [T, E]."""
    given = tokenizer(texts, padding=True, return_tensors="pt")
    hidden = model.text_model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).last_hidden_state
    return model.pooled_text(hidden, given["attention_mask"])


def fit_projections(
    model, image_features: Tensor, labels: Tensor, text_features: Tensor, text_labels: Tensor, steps: int = 400, batch_size: int = 256,
    learning_rate: float = 1e-3, scale: float = 10.0, bias: float = -5.0, seed: int = 0,
) -> None:  # fmt: skip
    """Train `visual_projection` and `text_projection` of a dual encoder, in place, by the SigLIP loss with all pairs of one class as positives.

    Scale and bias say what cosines are aimed at: above 0.5 for pairs of one class and below for others, so that what speaks for a text is positive.

    Args:
        image_features: [M, D] of the frozen image tower, before the projection. labels: [M]. text_features: [T, E]. text_labels: [T].
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = [model.visual_projection.weight, model.text_projection.weight]
    for parameter in parameters:
        with torch.no_grad():
            parameter.normal_(0, parameter.shape[1] ** -0.5, generator=generator)
    optimizer = torch.optim.AdamW(parameters, learning_rate, weight_decay=1e-2)
    same = (labels[:, None] == text_labels[None]).float()
    for _ in tqdm(range(steps), desc="projections"):
        rows = torch.randint(len(labels), (batch_size,), generator=generator)
        images, texts = F.normalize(model.visual_projection(image_features[rows]), dim=-1), F.normalize(model.text_projection(text_features), dim=-1)
        loss = F.binary_cross_entropy_with_logits(scale * images @ texts.T + bias, same[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
