"""The configuration fields that every B-cos family adds to the configuration it extends."""

import inspect
import math
from dataclasses import dataclass

from transformers import PreTrainedConfig

from .bcos_batch_norm import BATCH_NORMS
from .bcos_bounds import check_file, check_sizes, file_of
from .bcos_inputs import ENCODINGS
from .bcos_layers import WEIGHT_NORMS, check_b


# field -> its values, where they are names
CHOICES = {
    "weight_norm": WEIGHT_NORMS,
    "input_encoding": tuple(ENCODINGS),
    "head_activation": ("identity", "keep"),
    "inner_activation": ("keep", "identity"),
    "batch_norm": tuple(BATCH_NORMS),
    "max_pool": ("average", "keep"),
    "norm_layer": ("layer_norm", "batch_norm"),
}
# names that fields had, under which older folders were saved -> their names now; transformers uses the old ones in other families
RENAMED = {"use_bias": "keep_biases", "norm_eps": "bcos_eps", "hidden_activation": "inner_activation"}


def bcos_fields(config_class: type) -> set[str]:
    """Names of the fields that a B-cos configuration adds to the standard one."""
    mixins = [base for base in config_class.__mro__ if issubclass(base, BcosConfigMixin)]
    return {name for base in mixins if not issubclass(base, PreTrainedConfig) for name in _declared(base)}


def _declared(base: type) -> set[str]:
    return set(inspect.get_annotations(base))


@dataclass(repr=False, kw_only=True)
class BcosConfigMixin:
    """Mixed in before a `PreTrainedConfig`; a family overrides defaults.

    Attributes:
        b: exponent B >= 1 of the B-cos layers; or a list, one value per hidden layer (stage of a CNN), whose last value also serves what lies outside
            the layers (stem, pooler, head) unless one further value is given for that.
        weight_norm: "unit" (rows of length 1, B-cos LM) or "none" (pretrained weights as they are, B-cosification of vision models).
        keep_biases: keep the additive biases; they are then reported as `constant` in explanations.
        max_out: rows per unit, of which the largest responds.
        learnable_b: make B a parameter of each layer, `b` its start.
        bcos_eps: eps in sqrt(|x|^2 + eps^2); None: 1e-3 in convolutions, 1e-12 in linear layers. B-cos LM has 1e-3.
        input_encoding: "none", or for pictures "normalized" ([z, -z]) and "add_inverse" ([x, 1 - x]).
        head_before_pooling: classify each position, then take the mean (pictures).
        head_activation: "identity" drops the tanh or ReLU of a classification head, "keep" makes it a gate.
        inner_activation: "keep" makes the activations gates, "identity" drops them (a B-cos layer is non-linear without).
        logit_bias: added to the logits of a classification head; "auto" is -log(num_labels - 1). logit_temperature: divides them.
        base_model, base_revision: Hub id of the model that was converted, and its commit; None where it came from elsewhere.
    """

    b: float | int | list[float | int] = 2.0
    weight_norm: str = "none"
    keep_biases: bool = False
    max_out: int = 1
    learnable_b: bool = False
    bcos_eps: float | None = None
    input_encoding: str = "none"
    head_before_pooling: bool = False
    head_activation: str = "identity"
    inner_activation: str = "keep"
    logit_bias: float | int | str | None = None
    logit_temperature: float | int | None = None
    base_model: str | None = None
    base_revision: str | None = None

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        standard = {name for base in cls.__mro__ if not issubclass(base, BcosConfigMixin) for name in _declared(base)}
        if shared := sorted(standard & bcos_fields(cls)):
            raise TypeError(
                f"{cls.__name__}: expected B-cos fields that the standard configuration does not have, got {shared} in both. "
                "One value cannot serve both: rename the B-cos field."
            )

    def __new__(cls, *args, **kwargs):
        """A configuration whose sizes are looked at first, as transformers checks each value of a list and makes a name for every label."""
        check_sizes(kwargs, cls.__name__)
        return super().__new__(cls)

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """As transformers', of a file that is no default in disguise: a ValueError names one that is empty or no object."""
        file = None if kwargs.get("subfolder") else file_of(pretrained_model_name_or_path, "config.json")
        if file is not None:
            check_file(file, pretrained_model_name_or_path)
        return super().get_config_dict(pretrained_model_name_or_path, **kwargs)

    def __post_init__(self, **kwargs) -> None:
        for old, new in RENAMED.items():
            if old in kwargs:
                setattr(self, new, kwargs.pop(old))
        if __name__.startswith("bcos_hf."):  # which has the pipelines itself: no remote code is needed
            kwargs.pop("custom_pipelines", None)
        check_sizes({**vars(self), **kwargs}, type(self).__name__)
        super().__post_init__(**kwargs)
        self.validate_bcos()  # here too, for a plain ValueError: the validators of @strict wrap theirs

    def validate_bcos(self) -> None:
        """Raise a ValueError that says what was expected; called on construction and, as a validator of @strict, before saving."""
        for name, allowed in CHOICES.items():
            if getattr(self, name, allowed[0]) not in allowed:
                raise ValueError(f"{name}: expected one of {allowed}, got {getattr(self, name)!r}.")
        if self.max_out < 1:
            raise ValueError(f"max_out: expected a whole number >= 1, got {self.max_out!r}.")
        if self.logit_temperature is not None and not self.logit_temperature > 0:
            raise ValueError(f"logit_temperature: expected a number > 0 or None, got {self.logit_temperature!r}.")
        if isinstance(self.logit_bias, str) and self.logit_bias != "auto":
            raise ValueError(f"logit_bias: expected a number, 'auto' or None, got {self.logit_bias!r}.")
        if self.logit_bias_value is not None and not math.isfinite(self.logit_bias_value):
            raise ValueError(f"logit_bias: expected a finite number, 'auto' or None, got {self.logit_bias!r}.")
        layers = self.hidden_layer_count
        if isinstance(self.b, list) and len(self.b) not in (layers, layers + 1):
            raise ValueError(
                f"b: expected a number, or a list of {layers} values (one per hidden layer) or {layers + 1} (the last for pooler and head); "
                f"got {len(self.b)} values. Give one number to use it everywhere."
            )
        for value in self.b if isinstance(self.b, list) else [self.b]:
            check_b(value)

    @property
    def hidden_layer_count(self) -> int:
        """How many hidden layers, or stages of a CNN, a list `b` speaks of."""
        return len(self.depths) if hasattr(self, "depths") else self.num_hidden_layers

    @property
    def logit_bias_value(self) -> float | None:
        """`logit_bias` as a number; the log odds of a uniform guess for "auto" (none for a single output)."""
        if self.logit_bias != "auto":
            return self.logit_bias
        return -math.log(self.num_labels - 1) if self.num_labels > 1 else None

    def b_of(self, layer: int | None) -> float:
        """B of hidden layer `layer`, or of what lies outside the layers (None)."""
        if isinstance(self.b, list):
            return float(self.b[-1 if layer is None else layer])
        return float(self.b)


@dataclass(repr=False, kw_only=True)
class BcosTextConfigMixin(BcosConfigMixin):
    """Defaults of B-cos LM (Wang et al., TMLR 2025): B = 1.5, unit rows, eps 1e-3, no logit bias."""

    b: float | int | list[float | int] = 1.5
    weight_norm: str = "unit"
    bcos_eps: float | None = 1e-3

    def validate_bcos(self) -> None:
        """As `BcosConfigMixin.validate_bcos`; fields that only pictures have must be at rest."""
        super().validate_bcos()
        if self.input_encoding != "none" or self.head_before_pooling:
            raise ValueError("input_encoding and head_before_pooling are for pictures: expected 'none' and False in a language model.")
        if getattr(self, "is_decoder", False) or getattr(self, "add_cross_attention", False):
            raise ValueError("is_decoder, add_cross_attention: expected False; an encoder used as a decoder, and cross-attention, are not supported.")


@dataclass(repr=False, kw_only=True)
class BcosDecoderConfigMixin(BcosTextConfigMixin):
    """As `BcosTextConfigMixin`, for causal language models: B = 1.1, the published choice.

    Attributes:
        convert_lm_head: the language model head, by default a plain linear layer, becomes a B-cos layer too.
    """

    b: float | int | list[float | int] = 1.1
    convert_lm_head: bool = False


@dataclass(repr=False, kw_only=True)
class BcosVisionConfigMixin(BcosConfigMixin):
    """Defaults of B-cosification (Arya et al., NeurIPS 2024): B = 2, rows as they are, [z, -z], logit bias.

    Attributes:
        batch_norm: what becomes of BatchNorm: "uncentered" (a bias that is kept takes up the running mean), "uncentered_unfolded" (it does not),
            "centered", or "position" (over channels, B-cos v2).
        max_pool: "average" (same window) or "keep".
        stride_blur: blur what layers and pools with a stride of 2 read, so that explanations have no lattice of skipped positions (see `bcos_blur`). Another
            function than the standard model's, to be refitted (`bcosify(calibration=...)`) or trained.
    """

    input_encoding: str = "normalized"
    logit_bias: float | int | str | None = "auto"
    batch_norm: str = "uncentered"
    max_pool: str = "average"
    stride_blur: bool = False


@dataclass(repr=False, kw_only=True)
class BcosConvConfigMixin(BcosVisionConfigMixin):
    """As `BcosVisionConfigMixin`, for networks that end in global average pooling: each position is classified, then the mean is taken."""

    head_before_pooling: bool = True


@dataclass(repr=False, kw_only=True)
class BcosImageTextConfigMixin(BcosVisionConfigMixin):
    """As `BcosVisionConfigMixin`, for an image and a text tower; the fields speak of the image tower.

    Attributes:
        convert_text: the text tower becomes a B-cos network too.
    """

    convert_text: bool = False

    @property
    def num_channels(self) -> int:
        """Of the pictures."""
        return self.vision_config.num_channels

    @property
    def hidden_layer_count(self) -> int:
        """As `BcosConfigMixin.hidden_layer_count`, of the image tower."""
        vision = self.vision_config
        return len(vision.depths) if hasattr(vision, "depths") else vision.num_hidden_layers
