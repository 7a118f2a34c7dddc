"""SimpleViT (Beyer et al., 2022, arXiv 2205.01580) and, with a stem of 3x3 convolutions, ViT-C (Xiao et al., NeurIPS 2021, arXiv 2106.14881).

A ViT without class token: patches, fixed sine and cosine positions, pre-norm blocks without biases in attention, mean pooling. Parameter names are
those of the B-cos v2 checkpoints.
"""

from collections import OrderedDict

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput


@strict
class SimpleViTConfig(PreTrainedConfig):
    """Configuration of a SimpleViT or ViT-C.

    Attributes:
        patch_size: of the picture, or of the stem's map. head_dim: of each attention head; None: hidden_size / num_attention_heads.
        stem_channels: output channels of the 3x3 convolutions before the patches; empty for SimpleViT. stem_strides: theirs; None: 2 where a
            convolution makes more channels than it gets, else 1.
    """

    model_type = "simple_vit"

    num_channels: int = 3
    patch_size: int = 16
    hidden_size: int = 192
    num_hidden_layers: int = 12
    num_attention_heads: int = 3
    head_dim: int | None = None
    intermediate_size: int = 768
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    stem_channels: list[int] | tuple[int, ...] = ()
    stem_strides: list[int] | tuple[int, ...] | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs) -> None:
        super().__post_init__(**kwargs)
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.hidden_size % 4 or self.hidden_size < 8:
            raise ValueError(f"hidden_size: expected a multiple of 4 from 8 on (sine and cosine of two coordinates), got {self.hidden_size}.")


class PatchEmbedding(nn.Module):
    """pixel_values [N, C, H, W] -> tokens [N, patches, D]; a patch is flattened row by row, channels innermost."""

    def __init__(self, config: SimpleViTConfig) -> None:
        super().__init__()
        self.patch_size, channels, parts = config.patch_size, config.num_channels, []
        strides = config.stem_strides or [None] * len(config.stem_channels)
        self.encoding = nn.Identity()
        for out, stride in zip(config.stem_channels, strides, strict=True):
            stride = stride or (2 if out > channels else 1)
            parts += [nn.Conv2d(channels, out, 3, stride, padding=1), nn.GroupNorm(1, out), ACT2FN[config.hidden_act]]
            channels = out
        if parts:
            self.conv_stem = nn.Sequential(*parts)
        self.linear = nn.Linear(channels * config.patch_size**2, config.hidden_size)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x, size = self.encoding(pixel_values), self.patch_size
        x = self.conv_stem(x) if hasattr(self, "conv_stem") else x
        if x.shape[-2] % size or x.shape[-1] % size:
            raise ValueError(f"pixel_values: expected a height and width that patches of {size} divide, got {list(x.shape[-2:])}.")
        patches = x.unflatten(3, (-1, size)).unflatten(2, (-1, size)).permute(0, 2, 4, 3, 5, 1)  # N, rows, columns, size, size, C
        return self.linear(patches.flatten(3)).flatten(1, 2), tuple(patches.shape[1:3])


class Attention(nn.Module):
    """Self-attention with its norm; x [N, L, D] -> [N, L, D]."""

    def __init__(self, config: SimpleViTConfig) -> None:
        super().__init__()
        inner = config.num_attention_heads * config.head_dim
        self.head_dim = config.head_dim
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.to_qkv = nn.Linear(config.hidden_size, 3 * inner, bias=False)
        self.to_out = nn.Linear(inner, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.to_qkv(self.norm(x)).unflatten(-1, (3, -1, self.head_dim)).permute(2, 0, 3, 1, 4)
        return self.to_out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


def _feed_forward(config: SimpleViTConfig) -> nn.Module:
    parts = OrderedDict(
        norm=nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps),
        linear1=nn.Linear(config.hidden_size, config.intermediate_size),
        act=ACT2FN[config.hidden_act],
        linear2=nn.Linear(config.intermediate_size, config.hidden_size),
    )
    return nn.ModuleDict({"net": nn.Sequential(parts)})


class Block(nn.Module):
    """Attention and feed-forward, each added to its input; x [N, L, D]."""

    def __init__(self, config: SimpleViTConfig) -> None:
        super().__init__()
        self.attn, self.ff = Attention(config), _feed_forward(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.ff["net"](x)


def sincos_positions(rows: int, columns: int, dim: int, like: Tensor, temperature: float = 10000.0) -> Tensor:
    """Sine and cosine of the column, then of the row, at dim / 4 frequencies; [rows * columns, dim], in the dtype and on the device of `like`."""
    quarter = dim // 4
    frequencies = temperature ** (-torch.arange(quarter, device=like.device, dtype=torch.float32) / (quarter - 1))
    y = torch.arange(rows, device=like.device)[:, None, None] * frequencies
    x = torch.arange(columns, device=like.device)[None, :, None] * frequencies
    y, x = (part.expand(rows, columns, quarter) for part in (y, x))
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=-1).flatten(0, 1).to(like.dtype)


class SimpleViTModel(PreTrainedModel):
    """SimpleViT without a head; pixel_values [N, C, H, W] -> last_hidden_state [N, patches, D] and its mean."""

    config_class = SimpleViTConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def __init__(self, config: SimpleViTConfig) -> None:
        super().__init__(config)
        self.to_patch_embedding = PatchEmbedding(config)
        self.transformer = nn.Sequential(OrderedDict((f"encoder_{i}", Block(config)) for i in range(config.num_hidden_layers)))
        self._add_head(config)
        self.post_init()

    def _add_head(self, config: SimpleViTConfig) -> None:
        """For heads."""

    def _with_positions(self, tokens: Tensor, positions: Tensor) -> Tensor:
        return tokens + positions

    def _hidden(self, pixel_values: Tensor) -> Tensor:
        tokens, grid = self.to_patch_embedding(pixel_values)
        return self.transformer(self._with_positions(tokens, sincos_positions(*grid, tokens.shape[-1], tokens)))

    def forward(self, pixel_values: Tensor, return_dict: bool | None = None, **kwargs):
        """Tokens and their mean."""
        hidden = self._hidden(pixel_values)
        output = BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=hidden.mean(1))
        return output.to_tuple() if return_dict is False else output


class SimpleViTForImageClassification(SimpleViTModel):
    """SimpleViT with a norm and a linear layer on the mean token."""

    def _add_head(self, config: SimpleViTConfig) -> None:
        norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.linear_head = nn.Sequential(OrderedDict(norm=norm, linear=nn.Linear(config.hidden_size, config.num_labels)))

    def forward(self, pixel_values: Tensor | None = None, labels: Tensor | None = None, return_dict: bool | None = None, **kwargs):
        """Logits [N, num_labels], and the loss where there are labels [N]."""
        logits = self.linear_head(self._hidden(pixel_values).mean(1))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        output = ImageClassifierOutput(loss=loss, logits=logits)
        return output.to_tuple() if return_dict is False else output
