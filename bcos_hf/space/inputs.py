"""What visitors may send: checked before anything reads it. Messages name no file and no path."""

from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps

from bcos_hf.data.image_files import rgb


MEGABYTES, MEGAPIXELS, CHARACTERS, PROMPTS = 10, 40, 5000, 9
MEAN = "mean"  # a contrast that is no class: the mean of all
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # no other of Pillow's decoders ever sees the bytes


class Missing(ValueError):
    """There is no input yet, which is no mistake."""


def uploaded(file: object, folder: str | Path) -> bytes | None:
    """The bytes of a file that the app itself stored in `folder`, a few more than are allowed at most; None for no file.

    Raises a ValueError for every other path, which is not opened.
    """
    if file is None:
        return None
    path = Path(str(file.get("path"))).resolve() if isinstance(file, dict) else None
    if path is None or not path.is_relative_to(Path(folder).resolve()) or not path.is_file():
        raise ValueError("Expected an uploaded picture.")
    with open(path, "rb") as stored:
        return stored.read(MEGABYTES * 1_000_000 + 1)


def checked_picture(content: bytes | None) -> Image.Image:
    """The picture in a file's content, upright, in RGB; of several frames the first.

    The size is read from the header: nothing is decoded that would not fit. Raises a ValueError that says what is expected.
    """
    if not content:
        raise Missing("Choose a picture.")
    if len(content) > MEGABYTES * 1_000_000:
        raise ValueError(f"Expected a file of at most {MEGABYTES} MB.")
    too_large = f"Expected a picture of at most {MEGAPIXELS} megapixels."
    try:
        picture = Image.open(BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # Pillow's own limits, which are higher
        raise ValueError(too_large) from error
    except Exception as error:  # its decoders raise of all kinds
        raise ValueError(f"Expected a picture ({', '.join(FORMATS)}); this file is none, whatever its name says.") from error
    if picture.width * picture.height > MEGAPIXELS * 1_000_000:
        raise ValueError(f"{too_large[:-1]}, got {picture.width:,} × {picture.height:,} pixels.")
    try:
        picture.load()
        return rgb(ImageOps.exif_transpose(picture))
    except Exception as error:
        raise ValueError("This picture is damaged or cut off.") from error


def checked_text(text: str | None, name: str = "text") -> str:
    """`text` as it was given. Raises a ValueError for nothing but white space, and for more than `CHARACTERS` characters."""
    if not isinstance(text, str) or not text.strip():
        raise Missing(f"Write a {name}.")
    if len(text) > CHARACTERS:
        raise ValueError(f"Expected a {name} of at most {CHARACTERS:,} characters, got {len(text):,}.")
    return text


def checked_prompts(text: str | None) -> list[str]:
    """The prompts in `text`, one a line; empty lines and repetitions are left out. Raises a ValueError for none or more than `PROMPTS`."""
    lines = list(dict.fromkeys(line.strip() for line in checked_text(text, "prompt").splitlines() if line.strip()))
    if len(lines) > PROMPTS:
        raise ValueError(f"Expected at most {PROMPTS} prompts, one a line, got {len(lines)}.")
    return lines


def checked_class(number: object, count: int, also: tuple[str, ...] = ()) -> int | str | None:
    """A class number from 0 to count - 1, or one of `also`; None for None and -1, which lists of choices have for it. Raises a ValueError for all else."""
    if number is None or number == -1:
        return None
    if number in also or (isinstance(number, int) and not isinstance(number, bool) and 0 <= number < count):
        return number
    raise ValueError(f"Expected one of the {count} classes.")
