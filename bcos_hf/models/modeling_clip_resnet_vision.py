"""The image tower of CLIP with a residual network (Radford et al., ICML 2021, arXiv 2103.00020), which transformers lacks; parameter names are OpenAI's.

A ResNet with three changes: a stem of three convolutions, average pooling before each convolution that would stride, and attention pooling in the place
of average pooling. The published sizes are in `CLIP_RESNETS`.
"""

from collections import OrderedDict

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPooling


CLIP_RESNETS = {
    "RN50": {"depths": [3, 4, 6, 3], "width": 64, "projection_dim": 1024, "image_size": 224},
    "RN101": {"depths": [3, 4, 23, 3], "width": 64, "projection_dim": 512, "image_size": 224},
    "RN50x4": {"depths": [4, 6, 10, 6], "width": 80, "projection_dim": 640, "image_size": 288},
    "RN50x16": {"depths": [6, 8, 18, 8], "width": 96, "projection_dim": 768, "image_size": 384},
    "RN50x64": {"depths": [3, 15, 36, 10], "width": 128, "projection_dim": 1024, "image_size": 448},
}


@strict
class CLIPResNetVisionConfig(PreTrainedConfig):
    """Configuration of the image tower.

    Attributes:
        width: channels after the stem; the last map has 32 times as many. depths: blocks of each stage. image_size: side of the pictures that the
            positions of the attention pool are made for. num_attention_heads: of that pool; None: one for 64 channels. projection_dim: of the embedding.
    """

    model_type = "clip_resnet_vision_model"
    base_config_key = "vision_config"

    num_channels: int = 3
    width: int = 64
    depths: list[int] | tuple[int, ...] = (3, 4, 6, 3)
    image_size: int = 224
    num_attention_heads: int | None = None
    projection_dim: int = 1024
    hidden_act: str = "relu"

    def __post_init__(self, **kwargs) -> None:
        super().__post_init__(**kwargs)
        self.num_attention_heads = self.num_attention_heads or max(1, self.hidden_size // 64)

    @property
    def reduction(self) -> int:
        """How many pixels along a side are one position of the last map: 32 with four stages."""
        return 2 ** (len(self.depths) + 1)

    @property
    def hidden_size(self) -> int:
        """Channels of the last map."""
        return self.width * self.reduction


class Bottleneck(nn.Module):
    """x [N, C, H, W] -> [N, 4 planes, H / stride, W / stride]."""

    def __init__(self, config: CLIPResNetVisionConfig, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu1 = nn.Conv2d(channels, planes, 1, bias=False), nn.BatchNorm2d(planes), ACT2FN[config.hidden_act]
        self.conv2, self.bn2, self.relu2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False), nn.BatchNorm2d(planes), ACT2FN[config.hidden_act]
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3, self.bn3, self.relu3 = nn.Conv2d(planes, 4 * planes, 1, bias=False), nn.BatchNorm2d(4 * planes), ACT2FN[config.hidden_act]
        parts = OrderedDict([("-1", nn.AvgPool2d(stride)), ("0", nn.Conv2d(channels, 4 * planes, 1, bias=False)), ("1", nn.BatchNorm2d(4 * planes))])
        self.downsample = nn.Sequential(parts) if stride > 1 or channels != 4 * planes else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu2(self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x))))))
        y = self.bn3(self.conv3(self.avgpool(y)))
        return self.relu3(y + (x if self.downsample is None else self.downsample(x)))


class AttentionPool2d(nn.Module):
    """The mean position attends to all positions and itself; x [N, C, H, W] -> [N, projection_dim]."""

    def __init__(self, config: CLIPResNetVisionConfig) -> None:
        super().__init__()
        channels, self.num_heads, side = config.hidden_size, config.num_attention_heads, config.image_size // config.reduction
        self.positional_embedding = nn.Parameter(torch.randn(side**2 + 1, channels) / channels**0.5)
        self.k_proj, self.q_proj, self.v_proj = (nn.Linear(channels, channels) for _ in range(3))
        self.c_proj = nn.Linear(channels, config.projection_dim)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = self._with_positions(torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1), x.shape[-2:])
        query, key, value = (
            proj(part).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for proj, part in ((self.q_proj, tokens[:, :1]), (self.k_proj, tokens), (self.v_proj, tokens))
        )
        return self._projected(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(1))

    def _with_positions(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        return tokens + self.positions(size)

    def _projected(self, pooled: Tensor) -> Tensor:
        return self.c_proj(pooled)

    def positions(self, size: tuple[int, int]) -> Tensor:
        """Position embeddings [1 + H W, C] for a map of H x W, bicubic where that is not the map they were trained for."""
        side = round((len(self.positional_embedding) - 1) ** 0.5)
        if tuple(size) == (side, side):
            return self.positional_embedding
        mean, grid = self.positional_embedding.split([1, side * side])
        grid = F.interpolate(grid.T.view(1, -1, side, side), size=size, mode="bicubic", align_corners=False)
        return torch.cat([mean, grid[0].flatten(1).T])


class CLIPResNetVisionModel(PreTrainedModel):
    """The image tower; pixel_values [N, C, H, W] -> last_hidden_state [N, 32 width, H / 32, W / 32], pooler_output: the embedding [N, projection_dim]."""

    config_class = CLIPResNetVisionConfig
    base_model_prefix = "vision_model"
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True  # for the text tower beside it: its own pool always takes torch's attention
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def __init__(self, config: CLIPResNetVisionConfig) -> None:
        super().__init__(config)
        half = config.width // 2
        for i, (before, after) in enumerate([(config.num_channels, half), (half, half), (half, config.width)], start=1):
            setattr(self, f"conv{i}", nn.Conv2d(before, after, 3, stride=2 if i == 1 else 1, padding=1, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(after))
            setattr(self, f"relu{i}", ACT2FN[config.hidden_act])
        self.avgpool = nn.AvgPool2d(2)
        channels = config.width
        for i, depth in enumerate(config.depths):
            planes, blocks = config.width * 2**i, []
            for block in range(depth):
                blocks.append(Bottleneck(config, channels, planes, stride=2 if i and not block else 1))
                channels = 4 * planes
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.attnpool = AttentionPool2d(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        PreTrainedModel._init_weights(self, module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight)
        elif isinstance(module, AttentionPool2d) and module.positional_embedding is not None:
            init.normal_(module.positional_embedding, std=module.positional_embedding.shape[1] ** -0.5)

    def feature_map(self, pixel_values: Tensor) -> Tensor:
        """The map that is pooled, [N, 32 width, H / 32, W / 32]."""
        x = pixel_values
        for i in range(1, 4):
            x = getattr(self, f"relu{i}")(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
        x = self.avgpool(x)
        for i in range(1, len(self.config.depths) + 1):
            x = getattr(self, f"layer{i}")(x)
        return x

    def forward(self, pixel_values: Tensor, return_dict: bool | None = None, **kwargs):
        """The last map and the embedding."""
        hidden = self.feature_map(pixel_values)
        output = BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=self.attnpool(hidden))
        return output.to_tuple() if return_dict is False else output
