"""B-cos VGG. A hidden layer, for a list of `b`, is a stage."""

from bisect import bisect
from dataclasses import dataclass, replace
from itertools import accumulate

from torch import Tensor

from .bcos_conversion import Roles
from .bcos_fits import Fit
from .configuration_bcos_vgg import BcosVGGConfig
from .modeling_bcos_vision import BcosImageClassifierMixin, BcosVisionModelMixin
from .modeling_vgg import VGGForImageClassification, VGGModel


@dataclass(frozen=True)
class _VGGRoles(Roles):
    """Modules of all stages are numbered in one row; `ends` are the numbers after each stage's last."""

    ends: tuple[int, ...] = ()

    def layer_of(self, name: str) -> int | None:
        module, _, number = name.partition(".")
        return bisect(self.ends, int(number)) if module == "features" else None


class _BcosVGG(BcosVisionModelMixin):
    config_class = BcosVGGConfig
    roles = _VGGRoles(logits=("classifier.6",), stems=("features.0",))
    classifier_fits = (*(Fit(rf"classifier\.{i}", then=(f"classifier.{i + 1}",)) for i in (0, 3)), Fit(r"classifier\.6"))

    @property
    def _roles(self) -> Roles:
        parts = 3 if self.config.use_batch_norm else 2
        ends = tuple(accumulate(parts * depth + 1 for depth in self.config.depths))
        # a convolution, its norm if it has one, its activation
        fits = (Fit(rf"features\.{i}", then=tuple(f"features.{i + k}" for k in range(1, parts))) for i in range(ends[-1]))
        return replace(self.roles, ends=ends, fits=(*fits, *self.classifier_fits))


class BcosVGGModel(_BcosVGG, VGGModel):
    """B-cos VGGModel: the last map and its mean."""


class BcosVGGForImageClassification(_BcosVGG, BcosImageClassifierMixin, VGGForImageClassification):
    """B-cos VGGForImageClassification."""

    def _base_output(self, pixel_values: Tensor, **kwargs):
        return VGGModel.forward(self, pixel_values, **kwargs)

    def _positions(self, hidden: Tensor) -> Tensor:
        return super()._positions(self._hidden(hidden))
