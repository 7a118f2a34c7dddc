"""How a standard model's images are normalized, z = (x - mean) / std of x in [0, 1]; by that [x, 1 - x] becomes the same function (`add_inverse_weights`)."""

import torch
from torch import Tensor
from transformers import AutoImageProcessor, PreTrainedModel
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES, get_image_processor_class_from_name
from transformers.utils import logging

from .bcos_processors import saved_processor


logger = logging.get_logger(__name__)


def normalization(processor, normalizes: bool) -> tuple[Tensor, Tensor]:
    """Mean and deviation, [3] each, by which an image processor makes z = (x - mean) / std of an image x in [0, 1]."""
    mean, std = (
        torch.tensor(value, dtype=torch.float64).expand(3) for value in (processor.image_mean, processor.image_std)
    )
    if not normalizes:
        mean, std = torch.zeros_like(mean), torch.ones_like(std)
    scale = 255 * processor.rescale_factor if processor.do_rescale else 255.0
    return (mean / scale).float(), (std / scale).float()


def normalization_of(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """`normalization` of the image processor that lies where `model` came from; with a warning of its family's, where there is none."""
    source = model.config._name_or_path
    try:
        processor = saved_processor(AutoImageProcessor, source)
    except OSError:
        kind = model.config.model_type.removesuffix("_vision_model").replace("clip_resnet", "clip")
        processor = get_image_processor_class_from_name(IMAGE_PROCESSOR_MAPPING_NAMES.get(kind, IMAGE_PROCESSOR_MAPPING_NAMES["vit"])["pil"])()
        logger.warning(
            f"input_encoding='add_inverse': {source or 'a model in memory'} has no image processor that says how images were normalized, so the mean "
            f"{processor.image_mean} and deviation {processor.image_std} of its family are taken. Pass processor=... to bcosify if they are others."
        )
    return normalization(processor, processor.do_normalize)
