"""A folder of explanations, as it lies on disk and on the Hub: data/{split}-00000.parquet and so on, and a record of each split.

Every file is there whole or not at all, and a shard before the record that counts it, so that work that stopped anywhere goes on with the first missing shard.
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bcos_hf.models.bcos_writing import write_json, written_whole


RECORD = "bcos_explanations_{}.json"


@dataclass
class ExplainedSplit:
    """One split of a folder.

    Attributes:
        made_from: fingerprints and settings, of JSON types. about: what the card says of it. shards: of each, how many rows it has and how many were skipped.
    """

    folder: Path
    name: str
    made_from: dict
    about: dict
    shards: list[dict] = field(default_factory=list)
    complete: bool = False

    @property
    def record(self) -> Path:
        """Where the record of the split is."""
        return self.folder / RECORD.format(self.name)

    def shard(self, number: int) -> Path:
        """Where its rows are."""
        return self.folder / "data" / f"{self.name}-{number:05}.parquet"

    def count(self, what: str) -> int:
        """How many "rows" there are so far, or how many were "skipped"."""
        return sum(shard[what] for shard in self.shards)

    def save(self) -> None:
        """Write the record."""
        facts = {name: value for name, value in asdict(self).items() if name not in ("folder", "name")}
        write_json(self.record, facts)

    def add(self, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
        """Write the next shard, a table at a time; its record is to be made by `counted`, when the tables are known to be all."""
        with written_whole(self.shard(len(self.shards))) as path, pq.ParquetWriter(path, schema) as writer:
            for table in tables:
                writer.write_table(table)

    def counted(self, rows: int, skipped: int) -> None:
        """The shard that was added, in the record."""
        self.shards.append({"rows": rows, "skipped": skipped})
        self.save()


def read_split(record: Path) -> ExplainedSplit:
    """The split of a record."""
    name = re.fullmatch(RECORD.format("(.+)"), record.name)[1]
    return ExplainedSplit(record.parent, name, **json.loads(record.read_text(encoding="utf-8")))


def splits_of(folder: str | os.PathLike) -> list[ExplainedSplit]:
    """All that are recorded in `folder`, by name."""
    return [read_split(record) for record in sorted(Path(folder).glob(RECORD.format("*")))]


def open_split(folder: str | os.PathLike, name: str, made_from: dict, about: dict) -> ExplainedSplit:
    """The split `name` of `folder` as far as it has been made, its shards without a gap; a new one where there is none.

    Raises:
        ValueError: a name that no split can have, shards without a record, or a folder that was made from something else; nothing is changed.
    """
    folder = Path(folder)
    if not re.fullmatch(r"\w+(\.\w+)*", name):
        raise ValueError(f"split: expected letters, digits and underscores, got {name!r}.")
    for other in splits_of(folder):
        different = [key for key, value in made_from.items() if other.made_from.get(key) != value and (other.name == name or key != "dataset")]
        if different:
            raise ValueError(
                f"{folder}: expected the {' and the '.join(different)} that its split {other.name!r} was explained with, got another. Nothing was changed; "
                "choose another folder, or delete this one."
            )
    found = ExplainedSplit(folder, name, made_from, about)
    if found.record.exists():
        found = read_split(found.record)
        there = next((number for number in range(len(found.shards)) if not found.shard(number).is_file()), len(found.shards))
        found.complete = found.complete and there == len(found.shards)
        found.shards = found.shards[:there]
    elif strangers := sorted(folder.glob(f"data/{name}-*.parquet")):
        raise ValueError(f"{strangers[0]}: expected {found.record.name} to say what it was made from, found none. Nothing was changed; choose another folder.")
    return found


def whole_splits(folder: str | os.PathLike) -> list[ExplainedSplit]:
    """The splits of `folder`, each complete with all its rows.

    Raises:
        RuntimeError: there is none, one is not finished, or a shard is missing or has other rows than its record says.
    """
    found = splits_of(folder)
    if not found or not all(split.complete for split in found):
        what = f"its splits {[split.name for split in found if not split.complete]} are not finished" if found else "there are none"
        raise RuntimeError(f"{folder}: expected complete explanations, but {what}. Run explain_dataset (again) with the same arguments.")
    for split in found:
        for number, shard in enumerate(split.shards):
            path = split.shard(number)
            rows = pq.read_metadata(path).num_rows if path.is_file() else None
            if rows != shard["rows"]:
                raise RuntimeError(f"{path}: expected {shard['rows']} rows, found {'no file' if rows is None else rows}. Delete it and run explain_dataset.")
    return found
