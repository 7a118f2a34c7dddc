"""Names of figures: those of their inputs, and none that there is already."""

import re
from pathlib import Path


LONGEST = 60  # characters


def figure_file(folder: Path, item: object, suffix: str) -> Path:
    """A path in `folder` that is free: an image's name or a text's first words, numbered from 2 where another figure has it."""
    text = Path(item).stem if isinstance(item, Path) else str(item)
    name = re.sub(r"[^\w.-]+", "-", text)[:LONGEST].strip("-.") or "input"
    number, file = 1, folder / f"{name}.{suffix}"
    while file.exists() or file.is_symlink():
        number += 1
        file = folder / f"{name}-{number}.{suffix}"
    return file
