"""VGG (Simonyan and Zisserman, ICLR 2015, arXiv 1409.1556), which transformers lacks; modules are numbered as torchvision's.

Stages of 3x3 convolutions, each with a pooling layer at its end, then three layers that classify. The first two of these are stored as the convolutions, 7x7
and 1x1, that they are for the paper's dense evaluation (section 3.2). The published depths are in `VGGS`.
"""

from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention, ImageClassifierOutputWithNoAttention


VGGS = {"vgg11": [1, 1, 2, 2, 2], "vgg13": [2, 2, 2, 2, 2], "vgg16": [2, 2, 3, 3, 3], "vgg19": [2, 2, 4, 4, 4]}
WINDOW = 7  # of the first layer that classifies


@strict
class VGGConfig(PreTrainedConfig):
    """Configuration of a VGG.

    Attributes:
        num_channels: of the pictures. hidden_sizes, depths: channels and convolutions of each stage. classifier_size: units of the hidden layers that classify.
        use_batch_norm: after each convolution of the stages. dropout: after the hidden layers that classify.
        dense: classify each position of the last map, padded, and take the mean (B-cos v2); else the one position of the map, pooled to 7x7.
    """

    model_type = "vgg"

    num_channels: int = 3
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 256, 512, 512)
    depths: list[int] | tuple[int, ...] = (1, 1, 2, 2, 2)
    classifier_size: int = 4096
    hidden_act: str = "relu"
    use_batch_norm: bool = True
    dropout: float = 0.5
    dense: bool = False


def _features(config: VGGConfig) -> nn.Sequential:
    parts, channels = [], config.num_channels
    for width, depth in zip(config.hidden_sizes, config.depths, strict=True):
        for _ in range(depth):
            norm = [nn.BatchNorm2d(width)] if config.use_batch_norm else []
            parts += [nn.Conv2d(channels, width, 3, padding=1), *norm, ACT2FN[config.hidden_act]]
            channels = width
        parts.append(nn.MaxPool2d(2, stride=2))
    return nn.Sequential(*parts)


class VGGPreTrainedModel(PreTrainedModel):
    """What the VGGs share."""

    config_class = VGGConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class VGGModel(VGGPreTrainedModel):
    """The stages alone; pixel_values [N, C, H, W] -> last_hidden_state [N, D, H / 32, W / 32] and its mean over positions [N, D]."""

    def __init__(self, config: VGGConfig) -> None:
        super().__init__(config)
        self.features = _features(config)
        self._add_head(config)
        self.post_init()

    def _add_head(self, config: VGGConfig) -> None:
        """For heads."""

    def forward(self, pixel_values: Tensor, return_dict: bool | None = None, **kwargs):
        """The last map and its mean."""
        hidden = self.features(pixel_values)
        output = BaseModelOutputWithPoolingAndNoAttention(last_hidden_state=hidden, pooler_output=hidden.mean((2, 3)))
        return output.to_tuple() if return_dict is False else output


class VGGForImageClassification(VGGModel):
    """VGG with the three layers that classify."""

    def _add_head(self, config: VGGConfig) -> None:
        size = config.classifier_size
        self.avgpool = nn.Identity() if config.dense else nn.AdaptiveAvgPool2d(WINDOW)
        first = nn.Conv2d(config.hidden_sizes[-1], size, WINDOW, padding=WINDOW // 2 if config.dense else 0)
        hidden = [part for layer in (first, nn.Conv2d(size, size, 1)) for part in (layer, ACT2FN[config.hidden_act], nn.Dropout(config.dropout))]
        self.classifier = nn.Sequential(*hidden, nn.Linear(size, config.num_labels))

    def _hidden(self, features: Tensor) -> Tensor:
        """What the last layer sees, [N, classifier_size, H', W'], of the last map."""
        hidden = self.avgpool(features)
        for layer in list(self.classifier)[:-1]:
            hidden = layer(hidden)
        return hidden

    def forward(self, pixel_values: Tensor | None = None, labels: Tensor | None = None, return_dict: bool | None = None, **kwargs):
        """Logits [N, num_labels], and the loss where there are labels [N]."""
        logits = self.classifier[-1](self._hidden(self.features(pixel_values)).mean((2, 3)))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        output = ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)
        return output.to_tuple() if return_dict is False else output
