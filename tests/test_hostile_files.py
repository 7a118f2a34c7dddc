"""No code of a file that is imported ever runs, nothing in it is endless or larger than the file, and a damaged one is named."""

import pickle
import struct
import zipfile

import pytest
import torch
from test_openai_clip import openai_state
from torch import nn

from bcos_hf.checkpoints import FORMATS, from_openai_clip
from bcos_hf.checkpoints.torchscript import torchscript_state


FILES = sorted(set(FORMATS) - {"bcos-lm"})  # which reads folders


def imported(kind, file):
    """What the importer of a format makes of a file."""
    read = FORMATS[kind][0]
    return read(file, name="resnet18") if kind == "bcos-v2" else read(file)


class Prints(nn.Module):
    """Printed when it is loaded by torch."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x

    @torch.jit.export
    def __getstate__(self):
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        print("CODE OF THE FILE RAN")
        self.weight = state[0]
        self.training = state[1]


class Writes(Prints):
    """Overwrites a file of the user's when it is loaded by torch."""

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        torch.ones(1).unsqueeze(0)
        print(torch.from_file("victim", True, 4, dtype=torch.uint8).fill_(0))
        self.weight = state[0]
        self.training = state[1]


class Loops(Prints):
    """Has no end when it is loaded by torch."""

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        while True:
            pass


class Allocates(Prints):
    """Asks for a terabyte when it is loaded by torch."""

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.weight = torch.ones(1 << 40)
        self.training = state[1]


class Reduced:
    """Unpickled, it calls."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("module", [Prints, Writes, Loops, Allocates])
def test_no_code_of_an_archive_runs(kind, module, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "victim").write_bytes(b"mine")
    torch.jit.save(torch.jit.script(module()), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="Expected"):
        imported(kind, tmp_path / "model.pt")
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert "RAN" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("archive", [True, False], ids=["archive", "pickle"])
def test_no_code_of_a_pickle_runs(kind, archive, tmp_path):
    torch.save(
        {"state_dict": Reduced(open, str(tmp_path / "made"), "w")},
        tmp_path / "model.pt",
        _use_new_zipfile_serialization=archive,
    )
    with pytest.raises(ValueError, match=r"model\.pt"):
        imported(kind, tmp_path / "model.pt")
    assert not (tmp_path / "made").exists()


def archive_of(file, content, **members):
    """A TorchScript archive with the given data.pkl."""
    with zipfile.ZipFile(file, "w") as made:
        for name, value in {"data.pkl": content, "constants.pkl": b"\x80\x02).", "version": b"3\n", **members}.items():
            made.writestr(f"model/{name}", value)


def without_end():
    """A module that holds itself."""
    module = b"\x80\x02c__torch__\nM\nq\x00)\x81q\x01}X\x01\x00\x00\x00ah\x01sb."
    return module


def called(function, argument):
    """A pickle that calls."""
    return b"\x80\x02c" + function + b"X" + struct.pack("<I", len(argument)) + argument + b"\x85R."


@pytest.mark.parametrize(
    "content",
    [
        without_end(),
        called(b"os\nsystem\n", b"touch made"),
        called(b"builtins\nexec\n", b"open('made', 'w')"),
        b"\x80\x02c__torch__\nM\nr\xff\xff\xff\xff.",  # a memo of four milliard places
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00",  # bytes that are not there
        pickle.dumps(bytearray(3), 5),
        b"",
        b"\x80\x02",
    ],
)
def test_what_torch_never_writes_is_refused(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archive_of(tmp_path / "model.pt", content)
    with pytest.raises(ValueError, match="Expected"):
        from_openai_clip(tmp_path / "model.pt")
    assert not (tmp_path / "made").exists()


def test_tensors_are_no_larger_than_what_is_stored(tmp_path):
    tiny, file = torch.zeros(1).expand(100_000, 100_000, 100), tmp_path / "model.pt"
    torch.save({"visual.conv1.weight": tiny}, file)
    with pytest.raises(ValueError, match="not stored in full"):
        from_openai_clip(file)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("model/data.pkl", b"\x80\x02}.")
        bomb.writestr("model/data/0", bytes(1 << 24))
    with pytest.raises(ValueError, match="larger unpacked"):
        from_openai_clip(file)


def test_an_archive_is_read_as_torch_reads_it(tmp_path):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
            self.register_buffer("step", torch.tensor(7))
            self.register_buffer("part", torch.arange(12.0).reshape(3, 4).T[1:])
            self.register_buffer("empty", torch.empty(0, 5))

        def forward(self, x):
            return self.layers(x)

    torch.jit.save(torch.jit.script(Shared().half()), tmp_path / "model.pt")
    expected, found = torch.jit.load(tmp_path / "model.pt").state_dict(), torchscript_state(tmp_path / "model.pt")
    assert found.keys() == expected.keys() and all(torch.equal(found[name], value) for name, value in expected.items())
    assert all(
        found[name].dtype == value.dtype and found[name].shape == value.shape for name, value in expected.items()
    )


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_damaged_files_are_named(kind, name, tmp_path):
    file = tmp_path / name
    if name.endswith("pt"):
        torch.save(openai_state(), file)
    else:
        from safetensors.torch import save_file

        save_file({key: value.contiguous() for key, value in openai_state().items()}, file)
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for content in (
        whole[: len(whole) // 2],
        whole[:-20],
        whole[:3],
        b"",
        b"{}",
        b"[]",
        *([bytes(flipped)] if name.endswith("pt") else []),
    ):
        file.write_bytes(content)
        with pytest.raises((ValueError, OSError), match=name.replace(".", r"\.")):
            imported(kind, file)
    file.unlink()
    with pytest.raises(OSError, match=name.replace(".", r"\.")):
        imported(kind, file)
