"""The one writer of files and folders: what is written is there whole or not at all, whenever the process is killed or the disk is full.

A file or a folder is made under a temporary name beside its place, brought to the disk, and renamed. A folder that has content already is exchanged as a
whole, in one step of the file system, so that no file of it is ever that of another save. Temporary ones of killed processes are removed by the next writer.
"""

import ctypes
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
TEMPORARY = re.compile(r"\..*\.([0-9a-f]{8})-(\d+)-[0-9a-f]{16}\.tmp")
DAY = 86400  # seconds after which a temporary file of another machine is taken for left over
CANNOT = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EFBIG,
    errno.EIO,
}  # whatever file such an error names, it is about the disk
# system -> its call that exchanges two paths, what comes before and between them, and its flag
EXCHANGES = {"linux": ("renameat2", (-100,), 2), "darwin": ("renamex_np", (), 2)}
_seen: dict[Path, int] = {}  # folder -> when it was last changed, with nothing left over in it


@contextmanager
def temporary_beside(path: str | os.PathLike) -> Iterator[Path]:
    """A free name beside `path`, whose folder is made; what is there at the end is removed. An error of the disk names `path`.

    Raises:
        OSError: the disk is full, or may not be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:100]}.{HOST}-{os.getpid()}-{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path.parent)
        yield temporary
    except Exception as error:
        if (number := _cannot(error, temporary)) is None:
            raise
        reason = os.strerror(number)
        raise OSError(
            number,
            f"{path}: could not be written ({reason}). What was there is unchanged; make room or choose another place.",
        ) from error
    finally:
        _remove(temporary)
        with suppress(OSError):
            _seen[path.parent] = path.parent.stat().st_mtime_ns


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path for a file, which takes the place of `path` at the end and is thrown away on an error."""
    path = Path(os.path.realpath(path))
    with temporary_beside(path) as temporary:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
        _to_disk(path.parent)


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write a file, making its folder; the old one stays until the new one is whole. Raises an OSError that names `path`."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike, text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike, value, indent: int = 2) -> None:
    """As `write_text`, of a value of JSON types."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


@contextmanager
def filled_at_once(
    folder: str | os.PathLike, replaces: Callable[[set[str]], Callable[[str], bool]] = lambda made: made.__contains__
) -> Iterator[Path]:
    """A temporary folder whose content is added to `folder` at the end, in one step, and thrown away on an error; other content of `folder` stays.

    Args:
        replaces: names that were made -> what says of a name in `folder` whether it goes.
    """
    given, folder = folder, Path(os.path.realpath(folder))
    if folder.is_file():
        raise NotADirectoryError(f"{given}: expected a folder to save to, got a file.")
    with temporary_beside(folder) as temporary:
        temporary.mkdir()
        yield temporary
        made = {path.name for path in temporary.iterdir()}
        if not made:  # one of several processes, whose part another one writes
            return folder.mkdir(exist_ok=True)
        for path in (*temporary.rglob("*"), temporary):
            _to_disk(path)
        _commit(temporary, folder, made, replaces(made))
        _to_disk(folder.parent)


def is_free(folder: str | os.PathLike) -> bool:
    """Whether there is nothing at `folder`, or a folder with nothing in it but what killed processes left."""
    folder = Path(folder)
    return not os.path.lexists(folder) or (
        folder.is_dir() and all(TEMPORARY.fullmatch(path.name) for path in folder.iterdir())
    )


def _commit(temporary: Path, folder: Path, made: set[str], goes: Callable[[str], bool]) -> None:
    try:
        return os.rename(temporary, folder)  # which is new, or empty
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.EACCES, errno.EPERM):
            raise
    if not Path.cwd().is_relative_to(folder):  # which would stay in what is removed
        try:
            shutil.copytree(
                folder,
                temporary,
                True,
                lambda place, names: _gone(place, names, folder, made, goes),
                _link,
                dirs_exist_ok=True,
            )
            shutil.copymode(folder, temporary)
            _exchange(temporary, folder)
        except (OSError, AttributeError, KeyError):  # no hard links, a mount point, a system without such a call
            pass
        else:
            for path in temporary.iterdir():  # what another process wrote there meanwhile
                if not goes(path.name) and not os.path.lexists(folder / path.name):
                    os.rename(path, folder / path.name)
            return
    _move(temporary, folder, made, goes)


def _move(temporary: Path, folder: Path, made: set[str], goes: Callable[[str], bool]) -> None:
    """One file after the other; what names the weights goes first and comes last, so that nothing loads in between."""
    gone = sorted(
        (path.name for path in folder.iterdir() if goes(path.name) and path.is_file()), key=_late, reverse=True
    )
    for name in gone:
        if name not in made or _late(name):
            (folder / name).unlink()
    for name in sorted(made, key=_late):
        os.replace(temporary / name, folder / name)


def _late(name: str) -> int:
    return 2 * (name in ("model.safetensors", "model.safetensors.index.json")) + (name == "config.json")


def _gone(place: str, names: list[str], folder: Path, made: set[str], goes: Callable[[str], bool]) -> list[str]:
    if Path(place) != folder:
        return []
    return [name for name in names if goes(name) and not (name in made and (folder / name).is_dir())]


def _link(source: str, target: str) -> None:
    if not os.path.lexists(target):
        os.link(source, target)


def _exchange(one: Path, other: Path) -> None:
    name, at, flag = EXCHANGES[sys.platform]
    call = getattr(ctypes.CDLL(None, use_errno=True), name)
    if call(*at, os.fsencode(one), *at, os.fsencode(other), flag):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))


def _to_disk(path: Path) -> None:
    if path.is_symlink() or os.name == "nt":
        return
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno != errno.EINVAL:  # of a file system that cannot
            raise
    finally:
        os.close(opened)


def _cannot(error: Exception, temporary: Path) -> int | None:
    """The number of an error of the disk that `temporary` is on; None for all else."""
    if isinstance(error, OSError) and (
        error.errno in CANNOT or (error.errno and str(error.filename or "").startswith(str(temporary)))
    ):
        return error.errno
    return errno.ENOSPC if "No space left" in str(error) or "os error 28" in str(error) else None


def _clear(folder: Path) -> None:
    """Remove what killed processes left in `folder`."""
    if _seen.get(folder) == folder.stat().st_mtime_ns:
        return
    for entry in os.scandir(folder):
        if (found := TEMPORARY.fullmatch(entry.name)) and _left_over(entry, *found.groups()):
            _remove(Path(entry.path))


def _left_over(entry: os.DirEntry, host: str, process: str) -> bool:
    with suppress(OSError):
        if host != HOST or os.name == "nt":
            return time.time() - entry.stat(follow_symlinks=False).st_mtime > DAY
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return True
        except OverflowError:
            return False
    return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
