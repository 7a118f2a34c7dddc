"""How a standard model's images are normalized, z = (x - mean) / std of x in [0, 1]; by that [x, 1 - x] becomes the same function (`add_inverse_weights`)."""

import torch
from torch import Tensor
from transformers import AutoImageProcessor, PreTrainedModel
from transformers.utils import logging

from .bcos_processors import family_processor, saved_processor


logger = logging.get_logger(__name__)


def normalization(processor, normalizes: bool) -> tuple[Tensor, Tensor]:
    """Mean and deviation, [3] each, by which an image processor makes z = (x - mean) / std of an image x in [0, 1]."""
    mean, std = (value.expand(3).float() for value in mean_and_std(processor, normalizes))
    return mean, std


def mean_and_std(processor, normalizes: bool) -> tuple[Tensor, Tensor]:
    """As `normalization`, in float64: a number for each channel that the processor tells apart, or one for all."""
    mean, std = (processor.image_mean, processor.image_std) if normalizes else (0.0, 1.0)
    scale = 255 * (processor.rescale_factor if processor.do_rescale else 1)
    mean, std = (torch.tensor(value, dtype=torch.float64) for value in (mean, std))
    return mean / scale, std / scale


def normalization_of(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """`normalization` of the image processor that lies where `model` came from; with a warning of its family's, where there is none."""
    source = model.config._name_or_path
    try:
        processor = saved_processor(AutoImageProcessor, source)
    except OSError:
        processor = family_processor(model.config)
        logger.warning(
            f"input_encoding='add_inverse': {source or 'a model in memory'} has no image processor that says how images were normalized, so the mean "
            f"{processor.image_mean} and deviation {processor.image_std} of its family are taken. Pass processor=... to bcosify if they are others."
        )
    return normalization(processor, processor.do_normalize)
