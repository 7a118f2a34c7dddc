"""B-cos SimpleViT and ViT-C. Positions are a constant; with `head_before_pooling` the head, its norm too, is applied at each token."""

from torch import Tensor, nn

from .bcos_conversion import Roles
from .bcos_dynamic import Dynamic
from .bcos_fits import Fit, mlp_fits
from .bcos_inputs import InputEncoding
from .configuration_bcos_simple_vit import BcosSimpleViTConfig
from .modeling_bcos_vision import BcosImageClassifierMixin, BcosVisionModelMixin
from .modeling_simple_vit import SimpleViTForImageClassification, SimpleViTModel


class _BcosSimpleViT(BcosVisionModelMixin, Dynamic):
    config_class = BcosSimpleViTConfig
    roles = Roles(
        logits=("linear_head.linear",),
        stems=("to_patch_embedding.conv_stem.0", "to_patch_embedding.linear"),
        layer=r"encoder_(\d+)\.",
        fits=(
            *(Fit(rf"(to_patch_embedding\.conv_stem\.){i}", then=(rf"\g<1>{i + 1}",)) for i in range(0, 30, 3)),
            Fit(r"to_patch_embedding\.linear"),
            Fit(r"(.*attn\.)to_qkv", (r"\1norm",)),
            Fit(r"(.*attn\.)to_out", stream=r"\1norm"),
            *mlp_fits(r".*ff\.net\.", "norm", "linear1", "act", "linear2"),
            Fit(r"(linear_head\.)linear", (r"\1norm",)),
        ),
    )
    is_convolutional = False

    def __init__(self, config, *args, **kwargs) -> None:
        super().__init__(config, *args, **kwargs)
        if not config.stem_channels:  # patches are cut before the first layer, so the picture is encoded before that
            self.to_patch_embedding.encoding = InputEncoding(config.input_encoding)

    def _with_positions(self, tokens: Tensor, positions: Tensor) -> Tensor:
        return self.with_constant(tokens + positions, positions)


class BcosSimpleViTModel(_BcosSimpleViT, SimpleViTModel):
    """B-cos SimpleViTModel: tokens and their mean."""


class BcosSimpleViTForImageClassification(_BcosSimpleViT, BcosImageClassifierMixin, SimpleViTForImageClassification):
    """B-cos SimpleViTForImageClassification."""

    def _base_output(self, pixel_values: Tensor, **kwargs):
        return SimpleViTModel.forward(self, pixel_values, **kwargs)

    def _head(self) -> nn.Module:
        return self.linear_head

    def _positions(self, hidden: Tensor) -> Tensor:
        return hidden
