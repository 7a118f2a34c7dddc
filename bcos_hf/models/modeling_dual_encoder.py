"""Any image tower beside any text encoder, compared by projected embeddings; as transformers' VisionTextDualEncoderModel, but for CNNs and mean tokens too.

Source: LiT, Zhai et al., CVPR 2022 (arXiv 2111.07991), trains such pairs of pretrained towers.
"""

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import MODEL_MAPPING, PreTrainedModel, VisionTextDualEncoderConfig
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPOutput


@strict
class DualEncoderConfig(VisionTextDualEncoderConfig):
    """Configuration of two towers.

    Attributes:
        text_pooling: "mean" over the tokens (sentence transformers) or "first" token.
    """

    model_type = "dual_encoder"

    text_pooling: str = "mean"


def _width(config) -> int:
    return config.hidden_sizes[-1] if hasattr(config, "hidden_sizes") else config.hidden_size


def _tower(config) -> PreTrainedModel:
    cls = MODEL_MAPPING[type(config)]
    return cls._from_config(config, **({} if cls._supports_sdpa else {"attn_implementation": "eager"}))  # CNNs have no attention to choose


class DualEncoderModel(PreTrainedModel):
    """Embeddings of pictures and texts in one space; the image feature is the mean of a CNN's last map, or a ViT's first token."""

    config_class = DualEncoderConfig
    base_model_prefix = "dual_encoder"
    input_modalities = ("image", "text")
    zero_shot = True
    _supports_sdpa = _supports_flash_attn = True

    def __init__(self, config: DualEncoderConfig) -> None:
        super().__init__(config)
        self.vision_model, self.text_model = _tower(config.vision_config), _tower(config.text_config)
        for tower, name in ((self.vision_model, "layernorm"), (self.text_model, "embeddings")):
            if hasattr(tower, name) and hasattr(tower, "pooler"):
                tower.pooler = None  # of a transformer: unused
        self.visual_projection = nn.Linear(_width(config.vision_config), config.projection_dim, bias=False)
        self.text_projection = nn.Linear(_width(config.text_config), config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if module is self:
            init.constant_(self.logit_scale, self.config.logit_scale_init_value)
        else:
            super()._init_weights(module)

    @classmethod
    def from_towers(cls, vision_model: PreTrainedModel, text_model: PreTrainedModel, **fields) -> "DualEncoderModel":
        """A pair with the weights of two models without heads, and random projections; `fields` are the configuration's."""
        made = cls(cls.config_class(vision_config=vision_model.config.to_dict(), text_config=text_model.config.to_dict(), **fields))
        for tower, source in ((made.vision_model, vision_model), (made.text_model, text_model)):
            wanted = tower.state_dict().keys()
            tower.load_state_dict({name: value for name, value in source.state_dict().items() if name in wanted})
        return made.to(vision_model.device).eval()

    def pooled_image(self, hidden: Tensor) -> Tensor:
        """What is projected, [N, D], of the image tower's last_hidden_state."""
        return hidden.mean((2, 3)) if hidden.dim() == 4 else hidden[:, 0]

    def pooled_text(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """What is projected, [N, D], of the text tower's last_hidden_state [N, L, D]."""
        if self.config.text_pooling == "first":
            return hidden[:, 0]
        mask = hidden.new_ones(hidden.shape[:2]) if attention_mask is None else attention_mask.to(hidden.dtype)
        return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def get_image_features(self, pixel_values: Tensor, **kwargs) -> BaseModelOutputWithPooling:
        """Image embeddings [N, D], not normalised, as `pooler_output`."""
        hidden = self.vision_model(pixel_values=pixel_values, **kwargs).last_hidden_state
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=self.visual_projection(self.pooled_image(hidden)))

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs) -> BaseModelOutputWithPooling:
        """Text embeddings [N, D], not normalised, as `pooler_output`."""
        hidden = self.text_model(input_ids=input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=self.text_projection(self.pooled_text(hidden, attention_mask)))

    def forward(self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor | None = None, interpolate_pos_encoding: bool | None = None, **kwargs):
        """Similarities of N pictures and M texts: logits_per_image [N, M], both embeddings, normalised."""
        more = {} if interpolate_pos_encoding is None else {"interpolate_pos_encoding": interpolate_pos_encoding}
        images = self.get_image_features(pixel_values, **more)
        texts = self.get_text_features(input_ids, attention_mask)
        image_embeds, text_embeds = (nn.functional.normalize(output.pooler_output, dim=-1) for output in (images, texts))
        logits = self.logit_scale.exp() * image_embeds @ text_embeds.T
        outputs = {"vision_model_output": images, "text_model_output": texts}
        return CLIPOutput(logits_per_image=logits, logits_per_text=logits.T, image_embeds=image_embeds, text_embeds=text_embeds, **outputs)
