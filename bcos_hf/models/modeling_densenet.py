"""DenseNet (Huang et al., CVPR 2017, arXiv 1608.06993), which transformers lacks; parameter names are torchvision's, so that its weights load.

Each layer sees the maps of all layers before it: norm, activation, 1x1 convolution, norm, activation, 3x3 convolution. Between blocks a transition halves
channels and size. The published sizes are in `DENSENETS`.
"""

from collections import OrderedDict

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention, ImageClassifierOutputWithNoAttention


DENSENETS = {
    "densenet121": {"growth_rate": 32, "depths": [6, 12, 24, 16], "embedding_size": 64},
    "densenet161": {"growth_rate": 48, "depths": [6, 12, 36, 24], "embedding_size": 96},
    "densenet169": {"growth_rate": 32, "depths": [6, 12, 32, 32], "embedding_size": 64},
    "densenet201": {"growth_rate": 32, "depths": [6, 12, 48, 32], "embedding_size": 64},
}


@strict
class DenseNetConfig(PreTrainedConfig):
    """Configuration of a DenseNet.

    Attributes:
        num_channels: of the pictures. embedding_size: channels after the stem. growth_rate: channels that each layer adds.
        depths: layers of each block. bottleneck: channels between the two convolutions of a layer, in growth rates.
    """

    model_type = "densenet"

    num_channels: int = 3
    embedding_size: int = 64
    growth_rate: int = 32
    depths: list[int] | tuple[int, ...] = (6, 12, 24, 16)
    bottleneck: int = 4
    hidden_act: str = "relu"


class DenseLayer(nn.Module):
    """x [N, C, H, W] -> the new maps [N, growth_rate, H, W]."""

    def __init__(self, config: DenseNetConfig, channels: int) -> None:
        super().__init__()
        inner = config.bottleneck * config.growth_rate
        self.norm1, self.relu1 = nn.BatchNorm2d(channels), ACT2FN[config.hidden_act]
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(inner), ACT2FN[config.hidden_act]
        self.conv2 = nn.Conv2d(inner, config.growth_rate, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.relu2(self.norm2(self.conv1(self.relu1(self.norm1(x))))))


class DenseBlock(nn.ModuleDict):
    """Layers that each add their maps to what the next one sees; x [N, C, H, W] -> [N, C + layers * growth_rate, H, W]."""

    def __init__(self, config: DenseNetConfig, channels: int, depth: int) -> None:
        super().__init__({f"denselayer{i + 1}": DenseLayer(config, channels + i * config.growth_rate) for i in range(depth)})

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.values():
            x = torch.cat([x, layer(x)], dim=1)
        return x


def _features(config: DenseNetConfig) -> nn.Sequential:
    channels = config.embedding_size
    parts = OrderedDict(
        conv0=nn.Conv2d(config.num_channels, channels, 7, stride=2, padding=3, bias=False),
        norm0=nn.BatchNorm2d(channels),
        relu0=ACT2FN[config.hidden_act],
        pool0=nn.MaxPool2d(3, stride=2, padding=1),
    )
    for i, depth in enumerate(config.depths, start=1):
        parts[f"denseblock{i}"] = DenseBlock(config, channels, depth)
        channels += depth * config.growth_rate
        if i < len(config.depths):
            halved = nn.Conv2d(channels, channels // 2, 1, bias=False)
            transition = OrderedDict(norm=nn.BatchNorm2d(channels), relu=ACT2FN[config.hidden_act], conv=halved, pool=nn.AvgPool2d(2, stride=2))
            parts[f"transition{i}"] = nn.Sequential(transition)
            channels //= 2
    parts["norm5"] = nn.BatchNorm2d(channels)
    return nn.Sequential(parts)


class DenseNetPreTrainedModel(PreTrainedModel):
    """What the DenseNets share."""

    config_class = DenseNetConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight)


class DenseNetModel(DenseNetPreTrainedModel):
    """DenseNet without a head; pixel_values [N, C, H, W] -> last_hidden_state [N, D, H / 32, W / 32] and its mean over positions [N, D]."""

    def __init__(self, config: DenseNetConfig) -> None:
        super().__init__(config)
        self.features = _features(config)
        self.relu5 = ACT2FN[config.hidden_act]
        self._add_head(config)
        self.post_init()

    def _add_head(self, config: DenseNetConfig) -> None:
        """For heads."""

    def forward(self, pixel_values: Tensor, return_dict: bool | None = None, **kwargs):
        """Maps and their mean."""
        hidden = self.relu5(self.features(pixel_values))
        output = BaseModelOutputWithPoolingAndNoAttention(last_hidden_state=hidden, pooler_output=hidden.mean((2, 3)))
        return output.to_tuple() if return_dict is False else output


class DenseNetForImageClassification(DenseNetModel):
    """DenseNet with a linear layer on the mean map."""

    def _add_head(self, config: DenseNetConfig) -> None:
        self.classifier = nn.Linear(self.features.norm5.num_features, config.num_labels)

    def forward(self, pixel_values: Tensor | None = None, labels: Tensor | None = None, return_dict: bool | None = None, **kwargs):
        """Logits [N, num_labels], and the loss where there are labels [N]."""
        logits = self.classifier(DenseNetModel.forward(self, pixel_values).pooler_output)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        output = ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)
        return output.to_tuple() if return_dict is False else output
