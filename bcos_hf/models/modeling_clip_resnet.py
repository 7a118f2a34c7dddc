"""CLIP with a residual network (Radford et al., ICML 2021, arXiv 2103.00020): its image tower beside transformers' CLIPTextModel."""

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, PreTrainedModel
from transformers import initialization as init

from .modeling_clip_resnet_vision import AttentionPool2d, CLIPResNetVisionConfig, CLIPResNetVisionModel


@strict
class CLIPResNetConfig(CLIPConfig):
    """Configuration of both towers; the defaults are RN50's."""

    model_type = "clip_resnet"
    sub_configs_defaults = {"vision_config": CLIPResNetVisionConfig, "text_config": CLIPTextConfig}

    vision_config: dict | CLIPResNetVisionConfig | None = None


class CLIPResNetModel(CLIPModel):
    """Both towers. The image tower projects its embedding itself, so `visual_projection` does nothing."""

    config_class = CLIPResNetConfig
    zero_shot = True

    def __init__(self, config: CLIPResNetConfig) -> None:
        PreTrainedModel.__init__(self, config)
        self.projection_dim = config.vision_config.projection_dim
        self.text_model = CLIPTextModel._from_config(config.text_config)
        self.vision_model = CLIPResNetVisionModel._from_config(config.vision_config)
        self.visual_projection = nn.Identity()
        self.text_projection = nn.Linear(config.text_config.hidden_size, self.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init_value))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, CLIPModel):
            init.normal_(module.text_projection.weight, std=module.text_projection.in_features**-0.5)
        elif isinstance(module, nn.Conv2d | nn.BatchNorm2d | AttentionPool2d):
            CLIPResNetVisionModel._init_weights(self, module)
        else:
            super()._init_weights(module)
