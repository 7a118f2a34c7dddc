"""How the recipes make a B-cos model: the pretrained weights as they are, or, with calibration_samples, refitted on training inputs."""

from collections.abc import Callable, Iterable

import torch
from transformers import PreTrainedModel

from bcos_hf.calibration import calibration_batches, refit_
from bcos_hf.models import twin_of

from .arguments import BcosArguments


def weight_norm_of(args: BcosArguments, default: str | None = None) -> str | None:
    """The weight_norm that `args` asks for; `default` where it asks for none, "none" where a refit needs it.

    Raises:
        ValueError: settings that do not go with a refit.
    """
    if args.calibration_samples < 0:
        raise ValueError(f"calibration_samples: expected 0 (no refit) or more, got {args.calibration_samples}.")
    if args.conventional or not args.calibration_samples:
        return args.weight_norm or default
    if args.weight_norm == "unit":
        raise ValueError(
            f"weight_norm 'unit' with calibration_samples {args.calibration_samples}: a refit expects weight_norm 'none', as rows of unit length have no "
            "scale that could be fitted. Leave weight_norm out, or set calibration_samples to 0."
        )
    if args.b_schedule == "linear":
        raise ValueError(
            f"b_schedule 'linear' with calibration_samples {args.calibration_samples}: a refit is made for the B that is set, and training would begin with "
            "another. Set b_schedule 'immediate', or calibration_samples to 0."
        )
    if getattr(args, "from_scratch", False):
        raise ValueError(
            f"from_scratch with calibration_samples {args.calibration_samples}: random weights have no standard layers to be fitted to. Set one of them to "
            "false and 0."
        )
    return "none"


def converted(
    standard: PreTrainedModel,
    missing: set[str],
    args: BcosArguments,
    fields: dict,
    inputs: Callable[[int], Iterable[dict]],
    source: str | None,
    processor=None,
    device: str | torch.device = "cpu",
) -> PreTrainedModel:
    """The B-cos twin of `standard`, refitted where `args` asks for it.

    Args:
        missing: names of the tensors of `standard` that are random. fields: of the B-cos configuration.
        inputs: a number -> so many training inputs, in batches. source: the name of their data set, for the report. processor: that of the inputs; of images
            its mean and deviation are those that the standard model's images are normalized with.
        device: where it is fitted, and where both models are afterwards.
    """
    twin = twin_of(standard, missing, **fields)
    if args.calibration_samples:
        batches, pixels = calibration_batches(twin, inputs(args.calibration_samples), processor)
        refit_(twin.to(device), standard.to(device), batches, pixels)
        twin.conversion_report.calibration["source"] = source
    return twin
