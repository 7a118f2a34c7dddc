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
# a save is killed before its k-th change of a name, for every k
KILLED = """
import os, shutil, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:2]
from conftest import tiny
from bcos_hf import bcosify
from bcos_hf.models import bcos_writing
folder, shard, in_place = sys.argv[2], sys.argv[3], sys.argv[4] == "True"
new = bcosify(tiny("bert"), b=1.25).float()
if in_place:
    bcos_writing.EXCHANGES = {}
for k in range(100):
    shutil.copytree(f"{folder}/old", f"{folder}/{k}/model")
    if os.fork() == 0:
        count = 0

        def counted(call):
            def replaced(*args, **kwargs):
                global count
                count += 1
                if count > k:
                    os._exit(9)
                return call(*args, **kwargs)

            return replaced

        for owner, name in ((os, "rename"), (os, "replace"), (Path, "unlink")):
            setattr(owner, name, counted(getattr(owner, name)))
        bcos_writing._exchange = counted(bcos_writing._exchange)
        new.save_pretrained(f"{folder}/{k}/model", max_shard_size=shard)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.wait()[1]) == 0:
        print(k)
        break
"""


def weights_of(model):
    return torch.cat([value.flatten() for value in model.state_dict().values()])


@pytest.mark.parametrize(
    "before, after, in_place", [("1GB", "1GB", False), ("20KB", "40KB", False), ("1GB", "40KB", False), ("20KB", "1GB", False), ("20KB", "40KB", True)]
)
def test_a_save_that_is_killed_leaves_one_model_whole(before, after, in_place, tmp_path):
    old = bcosify(tiny("bert"), b=2.0).float()
    with torch.no_grad():
        for parameter in old.parameters():
            parameter.add_(1)
    old.save_pretrained(tmp_path / "old", max_shard_size=before)
    (tmp_path / "old" / "notes.txt").write_text("mine")
    arguments = [str(ROOT / "tests"), str(tmp_path), after, str(in_place)]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    seen, new = [], bcosify(tiny("bert"), b=1.25).float()
    for folder in (tmp_path / str(k) / "model" for k in range(int(done.stdout) + 1)):
        assert (folder / "notes.txt").read_text() == "mine"
        try:
            found = type(new).from_pretrained(folder)
        except OSError:
            assert in_place  # on a file system that cannot exchange, nothing loads rather than a mixture
            continue
        wanted = {2.0: old, 1.25: new}[found.config.b]
        assert torch.equal(weights_of(found), weights_of(wanted))
        seen.append(found.config.b)
    assert seen == sorted(seen, reverse=True) and {2.0, 1.25} == set(seen)
    new.save_pretrained(tmp_path / "0" / "model", max_shard_size=after)
    assert [path.name for path in (tmp_path / "0").iterdir()] == ["model"]
    assert torch.equal(weights_of(type(new).from_pretrained(tmp_path / "0" / "model")), weights_of(new))


FULL = OSError(errno.ENOSPC, "No space left on device")


def full(*args, **kwargs):
    raise FULL


WRITES = ["builtins.open", "io.open", "os.fsync", "os.replace", "os.rename", "os.mkdir", "shutil.copyfile", "safetensors.torch.save_file"]


@pytest.mark.parametrize("call", [*WRITES, "transformers.modeling_utils.safe_save_file"])
def test_a_full_disk_is_named_and_changes_nothing(call, tmp_path, monkeypatch):
    model = bcosify(tiny("bert"), b=2.0).float()
    explanation = model.explain(torch.tensor([[5, 6, 7]]))
    model.save_pretrained(tmp_path / "model")
    explanation.save(tmp_path / "why.safetensors")
    write_text(tmp_path / "text", "old")
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    model.config.b = 1.25
    writers = {
        "model": lambda: model.save_pretrained(tmp_path / "model"),
        "why.safetensors": lambda: explanation.save(tmp_path / "why.safetensors"),
        "text": lambda: write_text(tmp_path / "text", "new"),
        "deep": lambda: write_text(tmp_path / "deep" / "text", "new"),
    }
    failed = []
    for name, write in writers.items():
        with monkeypatch.context() as patched:
            patched.setattr(call, full)
            if call.endswith("save_file"):
                patched.setattr("bcos_hf.models.bcos_explanation.save_file", full)
            try:
                write()
            except OSError as error:
                assert error.errno == errno.ENOSPC and str(tmp_path / name) in str(error) and "site-packages" not in str(error)
                failed.append(name)
    assert failed
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file() and path.parts[-2] != "deep" and path.parts[-1] not in set(writers) - set(failed)
            and not ("model" not in failed and "model" in path.parts)} == {path: content for path, content in before.items()
            if path.name not in set(writers) - set(failed) and not ("model" not in failed and "model" in path.parts)}  # fmt: skip
    assert not list(tmp_path.rglob(".*.tmp"))


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
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    own = {"write_text", "write_bytes", "replace", "rename"} & {
        call.attr for call in calls if call.attr.startswith("write_") or ast.unparse(call.value) == "os"
    }
    assert not own or path.name == "cost.py"  # which writes to /proc
