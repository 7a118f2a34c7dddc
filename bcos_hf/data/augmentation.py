"""The recipe's augmentations: random resized crop, flip and RandAugment of a picture, mixup of a batch.

Pillow does the work: its operations are those that RandAugment was defined with, act on 8-bit pictures, are antialiased, and cost a loading worker about a
millisecond. Random numbers are Python's global ones, for mixup torch's, which loading workers seed and checkpoints keep.

Sources: Szegedy et al., CVPR 2015 (arXiv 1409.4842) section 6 (crop); Cubuk et al., 2020 (arXiv 1909.13719) (RandAugment); Zhang et al., ICLR 2018
(arXiv 1710.09412) (mixup).
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torch.nn import functional as F


LEVELS = 30  # the scale that RandAugment's magnitude is a part of
ASPECTS = (3 / 4, 4 / 3)


def _affine(picture: Image.Image, x: tuple[float, float, float], y: tuple[float, float, float]) -> Image.Image:
    return picture.transform(picture.size, Image.Transform.AFFINE, (*x, *y))


# name -> what it does to a picture at strength v in [-1, 1]; those without a direction take |v| or nothing
OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda picture, v: picture,
    "auto_contrast": lambda picture, v: ImageOps.autocontrast(picture),
    "equalize": lambda picture, v: ImageOps.equalize(picture),
    "posterize": lambda picture, v: ImageOps.posterize(picture, 8 - round(4 * abs(v))),
    "solarize": lambda picture, v: ImageOps.solarize(picture, round(255 * (1 - abs(v)))),
    "brightness": lambda picture, v: ImageEnhance.Brightness(picture).enhance(1 + 0.9 * v),
    "color": lambda picture, v: ImageEnhance.Color(picture).enhance(1 + 0.9 * v),
    "contrast": lambda picture, v: ImageEnhance.Contrast(picture).enhance(1 + 0.9 * v),
    "sharpness": lambda picture, v: ImageEnhance.Sharpness(picture).enhance(1 + 0.9 * v),
    "rotate": lambda picture, v: picture.rotate(30 * v),
    "shear_x": lambda picture, v: _affine(picture, (1, 0.3 * v, 0), (0, 1, 0)),
    "shear_y": lambda picture, v: _affine(picture, (1, 0, 0), (0.3 * v, 1, 0)),
    "translate_x": lambda picture, v: _affine(picture, (1, 0, 150 / 331 * picture.width * v), (0, 1, 0)),
    "translate_y": lambda picture, v: _affine(picture, (1, 0, 0), (0, 1, 150 / 331 * picture.height * v)),
}


def random_box(width: int, height: int, smallest: float = 0.08) -> tuple[int, int, int, int]:
    """A random (left, upper, right, lower) with `smallest` to 1 of the area and an aspect of 3:4 to 4:3; after ten misfits the widest such in the middle."""
    for _ in range(10):
        area = width * height * random.uniform(smallest, 1)
        aspect = math.exp(random.uniform(*map(math.log, ASPECTS)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, upper = random.randint(0, width - w), random.randint(0, height - h)
            return left, upper, left + w, upper + h
    w, h = max(1, min(width, round(height * ASPECTS[1]))), max(1, min(height, round(width / ASPECTS[0])))
    left, upper = (width - w) // 2, (height - h) // 2
    return left, upper, left + w, upper + h


def rand_augment(picture: Image.Image, operations: int = 2, magnitude: float = 10) -> Image.Image:
    """`operations` random ones of OPERATIONS in a row, at `magnitude` of 30, in a random direction; what is moved in is black."""
    for name in random.choices(list(OPERATIONS), k=operations):
        picture = OPERATIONS[name](picture, random.choice((-1, 1)) * magnitude / LEVELS)
    return picture


@dataclass(frozen=True)
class Augmentation:
    """An RGB picture of any size -> one of `size` (height, width), at random.

    Attributes:
        smallest_crop: least share of the picture's area that a crop shows.
        flip: probability of a mirror image.
        operations, magnitude: of RandAugment; 0 operations leave it out.

    Raises:
        ValueError: a value outside its range.
    """

    size: tuple[int, int]
    smallest_crop: float = 0.08
    flip: float = 0.5
    operations: int = 0
    magnitude: float = 10
    resample: int = Image.Resampling.BILINEAR

    def __post_init__(self) -> None:
        if not (0 < self.smallest_crop <= 1 and 0 <= self.flip <= 1 and self.operations >= 0 and 0 <= self.magnitude <= LEVELS):
            raise ValueError(f"expected 0 < smallest_crop <= 1, 0 <= flip <= 1, operations >= 0 and 0 <= magnitude <= {LEVELS}, got {self}.")

    def __call__(self, picture: Image.Image) -> Image.Image:
        """The augmented picture."""
        picture = picture.resize(self.size[::-1], self.resample, box=random_box(*picture.size, self.smallest_crop))
        if random.random() < self.flip:
            picture = ImageOps.mirror(picture)
        return rand_augment(picture, self.operations, self.magnitude)


def mixup(pictures: Tensor, labels: Tensor, classes: int, alpha: float = 0.2) -> tuple[Tensor, Tensor]:
    """Convex combinations of the batch with itself in another order, share ~ Beta(alpha, alpha), one a batch.

    Args:
        pictures: [N, ...]. labels: [N] class numbers; rows labelled -100 are left out (unless all are).

    Returns:
        Pictures [M, ...] and soft labels [M, classes], whose rows sum to 1; M <= N.

    Raises:
        ValueError: alpha is not positive, or labels are not class numbers.
    """
    if not alpha > 0:
        raise ValueError(f"mixup: expected alpha > 0, got {alpha!r}.")
    if labels.dim() != 1 or labels.is_floating_point():
        raise ValueError(f"mixup: expected whole class numbers of shape [N] as labels, got {labels.dtype} of shape {list(labels.shape)}.")
    known = labels != -100
    if not known.any():
        return pictures, labels
    pictures, labels = pictures[known], labels[known]
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"mixup: expected labels from 0 to {classes - 1}, got {labels.min().item()} to {labels.max().item()}.")
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    other, soft = torch.randperm(len(labels)).to(labels.device), F.one_hot(labels.long(), classes).float()
    return share * pictures + (1 - share) * pictures[other], share * soft + (1 - share) * soft[other]
