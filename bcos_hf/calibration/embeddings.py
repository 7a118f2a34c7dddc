"""The bias of a patch layer in the position embeddings of the patches, exactly: both are added at each patch."""

import torch
from torch import Tensor, nn


def position_embeddings(modules: dict[str, nn.Module], name: str) -> Tensor:
    """The table of that name, [..., tokens, D]: a parameter, or the weight of an embedding."""
    if name in modules:
        return modules[name].weight
    parent, _, own = name.rpartition(".")
    return getattr(modules[parent], own)


@torch.no_grad()
def add_to_patches(positions: Tensor, bias: Tensor, config) -> None:
    """Add `bias` [D] to the positions of patches, in place; those of class and distillation tokens stand before
    them."""
    vision = getattr(config, "vision_config", config)
    patches = (vision.image_size // vision.patch_size) ** 2
    positions[..., positions.shape[-2] - patches :, :] += bias.to(positions)
