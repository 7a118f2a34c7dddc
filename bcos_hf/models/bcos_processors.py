"""Tokenizers and image processors are loaded through one door: damaged files are named, and images are no larger than a model can take."""

import os
from collections.abc import Iterator

from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, PreTrainedConfig
from transformers.models.auto.image_processing_auto import (
    IMAGE_PROCESSOR_MAPPING_NAMES,
    get_image_processor_class_from_name,
)

from .bcos_bounds import JSON_FILES, LARGEST, check_file, check_sizes, file_of


# what loads a processor -> files of which it needs one
FILES = {
    AutoTokenizer: (
        "tokenizer_config.json",
        "tokenizer.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "tokenizer.model",
        "spiece.model",
        "sentencepiece.bpe.model",
    ),
    AutoImageProcessor: ("preprocessor_config.json", "processor_config.json"),
}
FILES[AutoProcessor] = (*FILES[AutoImageProcessor], *FILES[AutoTokenizer])
LARGEST_IMAGE = LARGEST[0][1]


def files_of(auto: type, source: object) -> Iterator[str]:
    """Names of the files that a folder or a cached Hub id has for what `auto` loads."""
    return (name for name in FILES[auto] if file_of(source, name) is not None)


def saved_processor(auto: type, source: str | os.PathLike):
    """The tokenizer, image processor or both that lie beside a model.

    Args:
        auto: AutoTokenizer, AutoImageProcessor or AutoProcessor.
        source: a Hub id or folder.

    Raises:
        OSError: there is none.
        ValueError: damaged files, or images that no model takes; the message names them.
    """
    what = auto.__name__.removeprefix("Auto")
    if os.path.isdir(source) and not any(files_of(auto, source)):
        raise FileNotFoundError(f"{source}: expected one of {', '.join(FILES[auto])}, for a {what}; found none.")
    for name in JSON_FILES[1:]:
        if (file := file_of(source, name)) is not None:
            check_file(file, file)
    try:
        made = auto.from_pretrained(source, **({} if auto is AutoTokenizer else {"backend": "pil"}))
    except Exception as error:  # tokenizers raises of all kinds
        if not (found := list(files_of(auto, source))):
            raise OSError(f"{source}: there is no {what} ({error}).") from error
        raise ValueError(
            f"{source}: its {what} cannot be loaded from {', '.join(found)} ({error}). Repair or remove its files."
        ) from error
    return checked_processor(made)


def family_processor(config: PreTrainedConfig):
    """The stock image processor of a model's family, for a model that has none of its own."""
    family = config.model_type.removeprefix("bcos_").removesuffix("_vision_model").replace("clip_resnet", "clip")
    names = IMAGE_PROCESSOR_MAPPING_NAMES.get(family, IMAGE_PROCESSOR_MAPPING_NAMES["vit"])
    return get_image_processor_class_from_name(names["pil"])()


def image_channels(config: PreTrainedConfig) -> int:
    """How many channels the images have that a model takes, as its configuration or that of its image tower says; else 3."""
    return getattr(getattr(config, "vision_config", config), "num_channels", 3)


def checked_processor(processor):
    """`processor`, once the images that it makes are known to be no larger than a model takes. Raises a ValueError where they are."""
    images = getattr(processor, "image_processor", processor)
    if not hasattr(images, "do_resize"):
        return processor
    values = images.to_dict()
    check_sizes(values, type(images).__name__)
    part, edge = (
        values.get("crop_pct"),
        (values.get("size") or {}).get("shortest_edge"),
    )  # ConvNeXt's, which resizes to edge / part and then crops
    if part is not None and not (0 < part <= 1 and (edge or 1) / part <= LARGEST_IMAGE):
        raise ValueError(
            f"{type(images).__name__}: crop_pct: expected a part of the image that leaves it at most {LARGEST_IMAGE:,} wide, got {part}."
        )
    return processor
