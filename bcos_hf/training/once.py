"""Work that a demo does once: found done with the same settings, it is reused; done with others, or half, it is done again.

Only a folder that was made here is ever emptied: the first file in it says so, and one without it is refused.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from bcos_hf.models.bcos_writing import is_free, write_text


SETTINGS = "settings.json"
MARKER = ".made_by_bcos_hf"
MARKED = "Made by bcos_hf, which may empty this folder to do its work again with other settings. Without this file it does not.\n"


def own_folder(folder: str | Path) -> Path:
    """`folder`, new or empty and then marked as ours, or marked before.

    Raises:
        FileExistsError: a file, or a folder with content that has no mark; nothing is changed.
    """
    folder = Path(folder)
    if not (folder / MARKER).is_file():
        if not is_free(folder):
            raise FileExistsError(
                f"{folder}: expected a new or empty folder, or one that bcos_hf made ({MARKER} in it says so); got one with other content. "
                "Nothing was changed; choose another, or move what is there."
            )
        write_text(folder / MARKER, MARKED)
    return folder


def done_once(folder: str | Path, settings: dict, work: Callable[[], None]) -> Path:
    """`folder`, after `work()` has filled it; it is emptied first unless an earlier run with equal `settings` (of JSON types) was finished there.

    Raises:
        FileExistsError: a folder with content that was not made here; nothing is changed.
    """
    folder = own_folder(folder)
    file = folder / SETTINGS
    if _json_in(file) != settings:
        file.unlink(missing_ok=True)
        for path in folder.iterdir():
            if path.name == MARKER:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        work()
        write_text(file, json.dumps(settings, indent=2))
    return folder


def earlier_result(file: str | Path, settings: dict) -> dict | None:
    """What an earlier run wrote into the JSON file under equal "settings" (of JSON types); None where there is no such."""
    found = _json_in(file)
    return found if isinstance(found, dict) and found.get("settings") == settings else None


def _json_in(file: str | Path):
    """What a JSON file holds; None where there is none, or it is damaged, so that it is made again."""
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
