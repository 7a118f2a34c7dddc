"""A ViT for pictures of another size: its position embeddings are interpolated once, as transformers does at every call with interpolate_pos_encoding.

Source: Dosovitskiy et al., ICLR 2021 (arXiv 2010.11929) section 3.2.
"""

import torch
from torch import nn
from transformers import PreTrainedModel


def at_size(model: PreTrainedModel, size: int) -> PreTrainedModel:
    """`model`, from now on for square pictures of `size` pixels; networks without position embeddings, such as CNNs, take any size as they are.

    Raises:
        ValueError: `size` is no multiple of the patch size.
    """
    embeddings = next((module for module in model.modules() if hasattr(module, "interpolate_pos_encoding")), None)
    if embeddings is None or size == model.config.image_size:
        return model
    patches, position = embeddings.patch_embeddings, embeddings.position_embeddings
    if size % model.config.patch_size:
        raise ValueError(f"image_size: expected a multiple of the patch size, {model.config.patch_size}, got {size}.")
    count, others = (size // model.config.patch_size) ** 2, position.shape[1] - patches.num_patches
    with torch.no_grad():
        interpolated = embeddings.interpolate_pos_encoding(position.new_empty(1, others + count, position.shape[2]), size, size)
    embeddings.position_embeddings = nn.Parameter(interpolated.clone())
    embeddings.image_size = patches.image_size = (size, size)
    patches.num_patches, model.config.image_size = count, size
    return model
