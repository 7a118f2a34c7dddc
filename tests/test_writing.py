"""What is written is there whole or not at all: killed at any rename, on a full disk, twice at once; and what killed processes leave is removed."""

import ast
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny

from bcos_hf import bcosify
from bcos_hf.models import bcos_writing
from bcos_hf.models.bcos_writing import filled_at_once, is_free, write_text


ROOT = Path(__file__).parents[1]
CASES = {
    "one": ("1GB", "1GB"),
    "shards": ("20KB", "40KB"),
    "from shards": ("20KB", "1GB"),
    "in place": ("20KB", "40KB"),
}
STEPS = {"one": 1, "shards": 2, "from shards": 3, "in place": 9}
# for each case a save is killed before its k-th change of a name, for every k, or each second, ...; the processes share what is imported
KILLED = """
import os, shutil, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_writing import CASES, STEPS, models
from bcos_hf.models import bcos_writing

place, (old, new) = Path(sys.argv[2]), models()
for case, (before, after) in CASES.items():
    old.save_pretrained(place / case / "old", max_shard_size=before)
    (place / case / "old" / "notes.txt").write_text("mine")
    status, k = 9, 0
    while status:
        folder = place / case / str(k) / "model"
        shutil.copytree(place / case / "old", folder)
        if os.fork() == 0:
            left = k

            def counted(call):
                def replaced(*args, **kwargs):
                    global left
                    left -= 1
                    if left < 0:
                        os._exit(9)
                    return call(*args, **kwargs)

                return replaced

            for owner, name in ((os, "rename"), (os, "replace"), (Path, "unlink"), (bcos_writing, "_exchange")):
                setattr(owner, name, counted(getattr(owner, name)))
            if case == "in place":
                bcos_writing.EXCHANGES = {}
            new.save_pretrained(folder, max_shard_size=after)
            os._exit(0)
        status, k = os.waitstatus_to_exitcode(os.wait()[1]), k + STEPS[case]
"""


def models():
    """Two models of one layout, with other weights and another B."""
    old, new = bcosify(tiny("bert"), b=2.0).float(), bcosify(tiny("bert"), b=1.25).float()
    with torch.no_grad():
        for parameter in old.parameters():
            parameter.add_(1)
    return old, new


def weights_of(model):
    return torch.cat([value.flatten() for value in model.state_dict().values()])


def test_a_save_that_is_killed_leaves_one_model_whole(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(ROOT / "tests"), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    old, new = models()
    for case in CASES:
        killed = sorted(
            (path for path in (tmp_path / case).iterdir() if path.name != "old"), key=lambda path: int(path.name)
        )
        seen = []
        for folder in (path / "model" for path in killed):
            assert (folder / "notes.txt").read_text() == "mine"
            try:
                found = type(new).from_pretrained(folder)
            except OSError:
                assert case == "in place"  # on a file system that cannot exchange, nothing loads rather than a mixture
                continue
            assert torch.equal(weights_of(found), weights_of({2.0: old, 1.25: new}[found.config.b]))
            seen.append(found.config.b)
        assert len(seen) > 1 and seen == sorted(seen, reverse=True) and {2.0, 1.25} == set(seen)
        new.save_pretrained(killed[1] / "model", max_shard_size=CASES[case][1])
        assert [path.name for path in killed[1].iterdir()] == ["model"]
        assert torch.equal(weights_of(type(new).from_pretrained(killed[1] / "model")), weights_of(new))


FULL = OSError(errno.ENOSPC, "No space left on device")


def full(*args, **kwargs):
    raise FULL


SAVED = {
    "model": lambda model, path: model.save_pretrained(path),
    "explanation": lambda model, path: model.explain(input_ids=torch.tensor([[5, 6, 7]])).save(path),
    "text": lambda model, path: write_text(path, str(model.config.b)),
}
# kind -> at which calls it writes
CALLS = {
    "model": [
        "builtins.open",
        "os.fsync",
        "os.rename",
        "os.mkdir",
        "shutil.copyfile",
        "transformers.modeling_utils.safe_save_file",
    ],
    "explanation": ["os.fsync", "os.replace", "bcos_hf.models.bcos_explanation.save_file"],
    "text": ["io.open", "os.fsync", "os.replace"],
}


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("kind, call", [(kind, call) for kind, calls in CALLS.items() for call in calls])
def test_a_full_disk_is_named_and_changes_nothing(kind, call, new, tmp_path, monkeypatch):
    model, path = bcosify(tiny("bert"), b=2.0).float(), tmp_path / "deep" / "saved"
    if not new:
        SAVED[kind](model, path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    model.config.b = 1.25
    with monkeypatch.context() as patched, pytest.raises(OSError, match=r"No space left.*unchanged") as raised:
        patched.setattr(call, full)
        SAVED[kind](model, path)
    assert (
        raised.value.errno == errno.ENOSPC
        and str(path) in str(raised.value)
        and "site-packages" not in str(raised.value)
    )
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_left_over_files_are_removed_and_those_of_others_stay(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    names = {
        f".a.{bcos_writing.HOST}-{gone.pid}-{'0' * 16}.tmp": False,
        f".a.{bcos_writing.HOST}-{os.getppid()}-{'0' * 16}.tmp": True,  # of a process that lives
        f".a.{'0' * 8}-{gone.pid}-{'0' * 16}.tmp": True,  # of another machine
        ".a.tmp": True,
        "a": True,
    }
    for name in names:
        (tmp_path / name).write_text("")
    write_text(tmp_path / "b", "text")
    assert {path.name for path in tmp_path.iterdir()} == {"b", *(name for name, stays in names.items() if stays)}


def test_a_folder_keeps_its_content_its_mode_and_its_links(tmp_path):
    folder, link = tmp_path / "real", tmp_path / "link"
    (folder / "checkpoint-1").mkdir(parents=True)
    (folder / "checkpoint-1" / "state").write_text("state")
    (folder / "replaced").write_text("old")
    (folder / "dangling").symlink_to("nowhere")
    folder.chmod(0o750)
    link.symlink_to(folder)
    with filled_at_once(link) as place:
        (place / "replaced").write_text("new")
        (folder / "meanwhile").write_text("by another process")
    assert link.is_symlink() and folder.stat().st_mode & 0o777 == 0o750
    assert {path.name for path in folder.iterdir()} == {"checkpoint-1", "replaced", "dangling", "meanwhile"}
    assert (folder / "replaced").read_text() == "new" and (folder / "checkpoint-1" / "state").read_text() == "state"


def test_the_working_folder_stays_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").write_text("old")
    with filled_at_once(".") as place:
        (place / "new").write_text("new")
    assert sorted(os.listdir(".")) == ["new", "old"] and is_free("none") and not is_free(".")


FILES = [*sorted((ROOT / "bcos_hf").rglob("*.py")), *sorted((ROOT / "recipes").glob("*.py"))]


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "bcos_writing.py"], ids=lambda path: path.name)
def test_one_writer_serves_all(path):
    text = path.read_text()
    if not any(name in text for name in ("write_text", "write_bytes", "os.replace", "os.rename")):
        return
    calls = [
        node.func
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    own = {"write_text", "write_bytes", "replace", "rename"} & {
        call.attr for call in calls if call.attr.startswith("write_") or ast.unparse(call.value) == "os"
    }
    assert not own or path.name in (
        "assets.py",
        "cost.py",
    )  # the one renames within a temporary folder, the other writes to /proc
