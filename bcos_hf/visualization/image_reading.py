"""An explanation of a picture in plain numbers and arrays, for whatever draws it."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .image import gradient_to_image, peak, signed_map, smoothed, to_picture
from .reading import Decision, decide


@dataclass(frozen=True, eq=False)
class ImageReading(Decision):
    """A decision about a picture; tensors are on the CPU, `picture` and `colours` None where the explanation cannot tell them."""

    picture: Tensor | None  # [H, W, 3]
    colours: Tensor | None  # [H, W, 4], see gradient_to_image
    values: Tensor  # [H, W], smoothed contributions
    signed: Tensor  # [H, W, 4], see signed_map
    peak: float  # the |value| that `signed` shows in full colour
    smooth: int | None  # side in pixels of the square that both maps were averaged over


def side_of_square(height: int, width: int) -> int:
    """Over how many pixels maps are averaged: 15 for 224 pixels, as published, and as large a part of other sizes."""
    return max(1, round(15 * min(height, width) / 224))


def read_image(explanation: Any, index: int = 0, target: int = 0, mean=None, std=None, smooth: int | str | None = "fit") -> ImageReading:
    """Example `index` and its `target`-th target.

    Args:
        explanation: contributions [N, K, H, W]. The colours need weights of the encoded input of a grey or colour picture, the picture pixel_values of one.
        mean, std: of the image processor, see `to_picture`.
        smooth: side in pixels of the square that both maps are averaged over; "fit": see `side_of_square`.

    Raises:
        ValueError: contributions are not [N, K, H, W]. IndexError: there is no such example or target.
    """
    if explanation.contributions.dim() != 4:
        raise ValueError(f"expected contributions of pictures [N, K, H, W], got {list(explanation.contributions.shape)}: use the text functions for texts")
    decision = decide(explanation, index, target)
    contributions = explanation.contributions[index, target].detach().cpu()
    pixels, weights = explanation.pixel_values, explanation.weights
    encoded = weights is not None and weights.shape[2] in ((2, 6) if pixels is None else (2 * pixels.shape[1],))
    smooth = side_of_square(*contributions.shape) if smooth == "fit" else smooth
    visible = pixels is not None and pixels.shape[1] in (1, 3)
    values = smoothed(contributions, smooth)
    return ImageReading(
        **vars(decision),
        picture=to_picture(pixels[index].detach().cpu(), mean, std) if visible else None,
        colours=gradient_to_image(weights[index, target].detach().cpu(), contributions, smooth) if encoded else None,
        values=values,
        signed=signed_map(values),
        peak=peak(values).item(),
        smooth=smooth,
    )


def averaged(words: str, smooth: int | None) -> str:
    """What a map shows, and whether it was averaged."""
    return words + (f", mean of {smooth} × {smooth}" if smooth and smooth > 1 else "")
