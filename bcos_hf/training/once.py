"""Work that a demo does once: found done with the same settings, it is reused; done with others, or half, it is done again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path


SETTINGS = "settings.json"


def done_once(folder: str | Path, settings: dict, work: Callable[[], None]) -> Path:
    """`folder`, after `work()` has filled it; it is emptied first unless an earlier run with equal `settings` (of JSON types) was finished there."""
    folder = Path(folder)
    file = folder / SETTINGS
    if not file.is_file() or json.loads(file.read_text(encoding="utf-8")) != settings:
        shutil.rmtree(folder, ignore_errors=True)
        work()
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return folder


def earlier_result(file: str | Path, settings: dict) -> dict | None:
    """What an earlier run wrote into the JSON file under equal "settings" (of JSON types); None where there is no such."""
    file = Path(file)
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found if found.get("settings") == settings else None
