"""What a vision transformer adds to its patches: the class token and the position embeddings, which no pixel contributes, as a constant."""

import torch
from torch import Tensor

from .bcos_dynamic import Dynamic


class ConstantTokens(Dynamic):
    """Mixed in before the embeddings of a ViT; pixel_values [N, C, H, W] -> [N, special tokens + patches, D].

    `special_tokens` names the parameters that stand before the patches, in order.
    """

    special_tokens: tuple[str, ...] = ("cls_token",)

    def forward(self, pixel_values: Tensor, *args, **kwargs) -> Tensor:
        y = super().forward(pixel_values, *args, **kwargs)
        return self.with_constant(y, self._constant(y, pixel_values) if self.explaining else None)

    def _constant(self, y: Tensor, pixel_values: Tensor) -> Tensor:
        special = torch.cat([getattr(self, name) for name in self.special_tokens], dim=1)
        height, width = pixel_values.shape[-2:]
        if y.shape[1] == self.position_embeddings.shape[1] and (height, width) == tuple(self.patch_embeddings.image_size):
            positions = self.position_embeddings
        else:
            positions = self.interpolate_pos_encoding(y, height, width)
        return positions + torch.nn.functional.pad(special, (0, 0, 0, y.shape[1] - special.shape[1]))


class ConstantEmbeddings(Dynamic):
    """Mixed in before the embeddings of CLIP's and SigLIP's image towers, which name things otherwise; shapes as in `ConstantTokens`."""

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        y = super().forward(pixel_values, interpolate_pos_encoding)
        return self.with_constant(y, self._constant(y, *pixel_values.shape[-2:], interpolate_pos_encoding) if self.explaining else None)

    def _constant(self, y: Tensor, height: int, width: int, interpolate: bool) -> Tensor:
        positions = self.interpolate_pos_encoding(y, height, width) if interpolate else self.position_embedding(self.position_ids)
        special = getattr(self, "class_embedding", None)
        return positions if special is None else positions + torch.nn.functional.pad(special[None, None], (0, 0, 0, y.shape[1] - 1))
