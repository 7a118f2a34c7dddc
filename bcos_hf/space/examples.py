"""What the app offers to begin with: the pictures of a folder, and the lines of its texts.txt and prompts.txt."""

from dataclasses import dataclass, field
from pathlib import Path


SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
TEXTS = ["A charming film, in spite of a dull plot.", "Never boring, and not once funny.", "I expected little, and got less."]
PROMPTS = ["a photo of a dog.", "a photo of a cat.", "a photo of a car."]


@dataclass
class Examples:
    """Files of pictures, texts, and one set of prompts."""

    pictures: list[Path] = field(default_factory=list)
    texts: list[str] = field(default_factory=lambda: TEXTS)
    prompts: list[str] = field(default_factory=lambda: PROMPTS)


def _lines(file: Path, otherwise: list[str]) -> list[str]:
    return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()] if file.is_file() else otherwise


def examples_in(folder: str | Path | None, sources: list[str] = ()) -> Examples:
    """The examples of a folder; without one, the example.png of models that were pushed with one. Raises a ValueError for a folder that is not there."""
    if folder is None:
        return Examples([file for file in (Path(source, "example.png") for source in sources) if file.is_file()])
    if not Path(folder).is_dir():
        raise ValueError(f"examples: expected a folder of pictures (and texts.txt, prompts.txt), got {folder}.")
    pictures = sorted(file for file in Path(folder).iterdir() if file.suffix.lower() in SUFFIXES)
    return Examples(pictures, _lines(Path(folder, "texts.txt"), TEXTS), _lines(Path(folder, "prompts.txt"), PROMPTS))
