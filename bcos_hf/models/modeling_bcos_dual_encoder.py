"""B-cos dual encoder: any B-cos image tower beside any text encoder, which stays, unless `convert_text` is set."""

from dataclasses import replace

from huggingface_hub.dataclasses import strict

from .bcos_conversion import Roles
from .bcos_fits import Fit, bert_fits
from .configuration_bcos import BcosImageTextConfigMixin
from .modeling_bcos_convnext import BcosConvNextModel
from .modeling_bcos_deit import BcosDeiTModel
from .modeling_bcos_dinov2 import BcosDinov2Model
from .modeling_bcos_image_text import BcosImageTextMixin
from .modeling_bcos_resnet import BcosResNetModel
from .modeling_bcos_vit import BcosViTModel
from .modeling_dual_encoder import DualEncoderConfig, DualEncoderModel


# model_type of the image tower -> the family whose rules it is converted by
TOWERS = {"convnext": BcosConvNextModel, "deit": BcosDeiTModel, "dinov2": BcosDinov2Model, "resnet": BcosResNetModel, "vit": BcosViTModel}


@strict
class BcosDualEncoderConfig(BcosImageTextConfigMixin, DualEncoderConfig):
    """DualEncoderConfig with the fields of `BcosImageTextConfigMixin`."""

    model_type = "bcos_dual_encoder"

    def validate_bcos(self) -> None:
        """As `BcosConfigMixin.validate_bcos`; the image tower must be of a family that there are rules for."""
        super().validate_bcos()
        if self.vision_config.model_type not in TOWERS:
            raise ValueError(f"vision_config: expected an image tower of {sorted(TOWERS)}, got {self.vision_config.model_type!r}.")


class BcosDualEncoderModel(BcosImageTextMixin, DualEncoderModel):
    """B-cos DualEncoderModel: similarities of pictures and texts."""

    config_class = BcosDualEncoderConfig

    @property
    def _tower(self) -> type:
        return TOWERS[self.config.vision_config.model_type]

    @property
    def roles(self) -> Roles:
        """Those of the image tower's family."""
        roles = self._tower.roles
        reads = () if getattr(self._tower, "is_convolutional", True) else ("vision_model.layernorm",)
        projections = (Fit("visual_projection", reads), Fit("text_projection"))
        fits = (*roles.fits, *bert_fits(), *projections)
        return replace(roles, logits=(), stems=[f"vision_model.{name}" for name in roles.stems], fits=fits)

    @property
    def twins(self) -> dict:
        """Those of the image tower's family."""
        return self._tower.twins
