"""The content of an image file as Pillow's image of 1 or 3 channels, 8 bits each, upright: the one reader of images, for everybody."""

from io import BytesIO

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps


# channels of a model -> Pillow's mode
MODES = {1: "L", 3: "RGB"}


def _eight_bits(picture: Pillow.Image) -> Pillow.Image:
    """An image of 16 or 32 bits a channel, which Pillow's convert() would clip at 255, in 8 bits."""
    values = np.nan_to_num(np.asarray(picture).astype(np.float64)).clip(0)
    largest = values.max(initial=0)
    if picture.mode.startswith("I;16") or picture.format in ("PNG", "PPM"):
        white = 65535
    elif picture.mode == "F" and largest <= 1:
        white = 1
    else:  # nothing in the file says what is white, so it is the largest number of the fewest bits that hold them all
        white = next((limit for limit in (255, 65535, 2**31 - 1) if largest <= limit), largest)
    return Pillow.fromarray(np.floor(values / white * 255 + (0 if white > 255 else 0.5)).astype(np.uint8))


def in_channels(image: Pillow.Image, channels: int = 3) -> Pillow.Image:
    """An image of any mode in gray (1 channel) or RGB (3), 8 bits a channel; alpha is dropped.

    Args:
        image: gray of 1, 8, 16 or 32 bits, floats, palette, CMYK, with or without alpha.
        channels: that the model takes.

    Raises:
        ValueError: a number of channels that no image has.
    """
    if channels not in MODES:
        raise ValueError(
            f"image: expected a model of {sorted(MODES)} channels, which image files have; it takes {channels}."
        )
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == MODES[channels] else image.convert(MODES[channels])


def rgb(picture: Pillow.Image) -> Pillow.Image:
    """`in_channels` of three."""
    return in_channels(picture)


def upright(image: Pillow.Image, channels: int = 3) -> Pillow.Image:
    """An image as it was meant to be seen, by the rotation that its camera noted, as `in_channels` has it."""
    return in_channels(ImageOps.exif_transpose(image), channels)


def decode(content: bytes, channels: int = 3) -> Pillow.Image:
    """The image, upright, of a file's content, as `in_channels` has it. Raises what Pillow raises where it is broken."""
    picture = Pillow.open(BytesIO(content))
    picture.load()
    return upright(picture, channels)
