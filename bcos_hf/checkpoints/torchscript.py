"""The tensors of a TorchScript archive, read as data: torch.jit.load would run the archive's own code (`__setstate__`), and this runs none.

An archive is a zip file: data.pkl says which module holds which tensor, data/KEY are the bytes of the tensors, and code/ is never opened. In data.pkl every
name of a class or function becomes a `Record`, which keeps what it is given and calls nothing. All that is read is bounded by the size of the file.
"""

import io
import math
import pickle
import pickletools
import zipfile
from pathlib import Path

import torch
from torch import Tensor


# what torch's own writer of archives puts into a pickle; nothing else is taken
OPCODES = {
    "PROTO",
    "STOP",
    "MARK",
    "GLOBAL",
    "BINPERSID",
    "REDUCE",
    "NEWOBJ",
    "BUILD",
    "NONE",
    "NEWTRUE",
    "NEWFALSE",
    "BININT",
    "BININT1",
    "BININT2",
}
OPCODES |= {
    "LONG1",
    "BINFLOAT",
    "BINUNICODE",
    "EMPTY_TUPLE",
    "TUPLE",
    "TUPLE1",
    "TUPLE2",
    "TUPLE3",
    "EMPTY_LIST",
    "APPEND",
    "APPENDS",
    "EMPTY_DICT",
}
OPCODES |= {"SETITEM", "SETITEMS", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"}
DTYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}
LARGEST_PICKLE = 4 << 20  # bytes; OpenAI's have a few hundred thousand
MOST_NAMES, MOST_MODULES, DEEPEST = 10_000, 100_000, 100


class Record:
    """Whatever a pickle names `name`: the arguments and the state that it is given, kept and not used."""

    name = ""

    def __new__(cls, *args):
        made = super().__new__(cls)
        made.args, made.state = args, None
        return made

    def __setstate__(self, state) -> None:
        self.state = state


class _Reader(pickle.Unpickler):
    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.named = {}

    def find_class(self, module: str, name: str) -> type[Record]:
        full = f"{module}.{name}"
        if len(self.named) >= MOST_NAMES:
            raise pickle.UnpicklingError(f"more than {MOST_NAMES:,} names")
        return self.named.setdefault(full, type("Record", (Record,), {"name": full}))

    def persistent_load(self, pid):
        return pid


def stored_members(file: str | Path) -> dict[str, zipfile.ZipInfo]:
    """The members of a zip file that torch wrote, but for its code: whole, not compressed, and together no larger than the file.

    Raises:
        zipfile.BadZipFile: a member is damaged, compressed, or larger than it can be.
    """
    with zipfile.ZipFile(file) as archive:
        members = {one.filename: one for one in archive.infolist() if "code" not in one.filename.split("/")[1:2]}
        packed = any(one.compress_type != zipfile.ZIP_STORED for one in members.values())
        if packed or sum(one.file_size for one in members.values()) > Path(file).stat().st_size:
            raise zipfile.BadZipFile("its members are larger unpacked than the file, which torch never writes")
        for name in members:
            with archive.open(name) as content:  # reading to the end compares the checksum
                while content.read(1 << 24):
                    pass
    return members


def is_torchscript(file: str | Path) -> bool:
    """Whether a zip file is a TorchScript archive: torch's other files have no constants."""
    with zipfile.ZipFile(file) as archive:
        return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())


def torchscript_state(file: str | Path) -> dict[str, Tensor]:
    """The tensors of an archive under the names of its state dict.

    Raises:
        zipfile.BadZipFile: it is damaged. pickle.UnpicklingError: it holds something else than modules and tensors.
    """
    members = stored_members(file)
    root = next((name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")), None)
    if root is None or members[f"{root}data.pkl"].file_size > LARGEST_PICKLE:
        raise pickle.UnpicklingError(f"expected a data.pkl of at most {LARGEST_PICKLE:,} bytes")
    with zipfile.ZipFile(file) as archive:
        content = archive.read(f"{root}data.pkl")
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name not in OPCODES or (opcode.name.endswith("PUT") and argument > len(content)):
                raise pickle.UnpicklingError(f"expected what torch writes, got the pickle instruction {opcode.name}")
        storages = {}
        return {
            name: _tensor(record.args, archive, root, storages)
            for name, record in _tensor_records(_Reader(content).load())
        }


def _tensor_records(top) -> list[tuple[str, Record]]:
    """(name, record) of every tensor of a module and of those in it; a bounded number, as one that holds itself has no end."""
    found, waiting, seen = [], [("", 0, top)], 0
    while waiting:
        prefix, depth, record = waiting.pop()
        inside = record.state if isinstance(record, Record) and isinstance(record.state, dict) else {}
        for name, value in inside.items():
            seen += 1
            if seen > MOST_MODULES or depth > DEEPEST:
                raise pickle.UnpicklingError("modules that hold each other without end")
            if isinstance(value, Record) and value.name == "torch._utils._rebuild_tensor_v2":
                found.append((f"{prefix}{name}", value))
            elif isinstance(value, Record):
                waiting.append((f"{prefix}{name}.", depth + 1, value))
    return found


def _tensor(args: tuple, archive: zipfile.ZipFile, root: str, storages: dict[str, Tensor]) -> Tensor:
    (_, kind, key, *_), offset, size, stride, *_ = args
    dtype = DTYPES[kind.name.removeprefix("torch.")]
    if (key, dtype) not in storages:
        content = bytearray(archive.read(f"{root}data/{key}"))
        storages[key, dtype] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
    stored = storages[key, dtype]
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    numel = math.prod(size)
    if min((offset, *size, *stride)) < 0 or numel > len(stored) or (numel and last >= len(stored)):
        raise pickle.UnpicklingError(f"a tensor of shape {list(size)} in {len(stored)} stored numbers")
    return stored.as_strided(size, stride, offset)
