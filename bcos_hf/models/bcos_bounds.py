"""Bounds before building: a few bytes of a configuration can ask for more memory than there is, so sizes are looked at first, as numbers.

The bounds are far above every published model. Beside a file of weights there is a closer one: a model has no more layers than the file has tensors, and
hardly more numbers, as only a new head is missing there.
"""

import json
import math
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from torch import nn
from transformers import AutoConfig, PreTrainedConfig


# fields, by how they are named -> the largest number there; the first that fits
LARGEST = (
    (r"image_size|size|crop_size|pad_size|height|width|shortest_edge|longest_edge|max_height|max_width", 4096),
    (r"num_labels|id2label", 100_000),
    (r"(num_)?(\w+_)?(hidden_layers|layers|layer|depths?|stages)", 1_000),
    (r"vocab_size|type_vocab_size|max_position_embeddings|n_positions|n_ctx", 100_000_000),
    (
        r"(\w+_)?(size|sizes|dim|units|heads|embd|inner|channels|groups|rate|width|length|kernel|kernels|bottleneck)|max_out|width_per_group",
        1_000_000,
    ),
)
PATTERNS = [(re.compile(pattern), largest) for pattern, largest in LARGEST]
LAYERS = PATTERNS[2][0]
IMAGES = ("preprocessor_config.json", "processor_config.json")
TEXTS = ("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")
JSON_FILES = ("config.json", "generation_config.json", "model.safetensors.index.json", *IMAGES, *TEXTS)
LONGEST_LIST = 10_000
WIDE = 100_000
FEW_LAYERS = 100  # which are built soon, and then the tensors that are missing can be named
SPARE = 1 << 28  # numbers of a new head that a file of weights does not have
LONGEST_JSON = 100_000_000  # bytes
_stored: ContextVar[int | None] = ContextVar("stored", default=None)


def check_sizes(values: dict, source: object = "the configuration", shapes: dict | None = None) -> None:
    """Look at all sizes of a configuration as plain values; those of its parts included.

    Args:
        source: what it belongs to, for errors. shapes: of the tensors that the weights have, where there are some.

    Raises:
        ValueError: a size beyond what any model has; the message names the field.
    """
    _check_lists(values, source)
    widest = 8 * max((max(shape, default=1) for shape in (shapes or {}).values()), default=0)
    for name, value in _numbers(values):
        pattern, largest = next(((one, most) for one, most in PATTERNS if one.fullmatch(name)), (None, math.inf))
        if value > largest:
            raise ValueError(
                f"{source}: {name}: expected at most {largest:,}, got {value:,.0f}. Nothing was built; repair the configuration."
            )
        if shapes and pattern is LAYERS and value > max(len(shapes), FEW_LAYERS):
            raise ValueError(
                f"{source}: {name}: expected no more layers than the weights have tensors ({len(shapes):,}), got {value:,.0f}. Nothing was built."
            )
        if shapes and pattern is not LAYERS and largest < math.inf and value > max(widest, WIDE):
            raise ValueError(
                f"{source}: {name}: expected a size that fits the weights, whose tensors are up to {widest // 8:,} wide, "
                f"got {value:,.0f}. Nothing was built."
            )


def _check_lists(values: dict, source: object, depth: int = 0) -> None:
    """Raise a ValueError for a list that is too long to be of a model, before anything looks at each of its values."""
    for name, value in values.items():
        if isinstance(value, list | tuple) and len(value) > LONGEST_LIST:
            raise ValueError(
                f"{source}: {name}: expected at most {LONGEST_LIST:,} values, got {len(value):,}. Nothing was built; repair the configuration."
            )
        if isinstance(value, dict) and depth < 5:
            _check_lists(value, source, depth + 1)


def _numbers(values: dict, depth: int = 0) -> Iterator[tuple[str, float]]:
    """(name, number) of all numbers, in lists and parts, too; of id2label how many it has."""
    for name, value in values.items():
        if name == "id2label" and isinstance(value, dict):
            yield name, len(value)
        elif isinstance(value, dict) and depth < 5:
            yield from _numbers(value, depth + 1)
        else:
            items = value if isinstance(value, list | tuple) else [value]
            if LAYERS.fullmatch(str(name)) and isinstance(value, list | tuple):
                yield str(name), sum(item for item in items if _is_number(item))
            yield from ((str(name), item) for item in items if _is_number(item))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_folder(source: object, subfolder: str | None = None) -> None:
    """Look at the JSON files that a folder or a cached Hub id has, of its model, its images and its texts.

    Raises:
        ValueError: a size beyond what any model has, or a file that is damaged; the message names it.
        OSError: a folder without a configuration.
    """
    source = (
        os.path.join(source, subfolder)
        if subfolder and isinstance(source, str | os.PathLike) and os.path.isdir(source)
        else source
    )
    shapes = stored_shapes(source)
    if isinstance(source, str | os.PathLike) and os.path.isdir(source) and not Path(source, "config.json").is_file():
        raise FileNotFoundError(
            f"{source}: expected the folder of a model, with a config.json, found none. Save or download it again."
        )
    for name in JSON_FILES:
        if (file := file_of(source, name)) is not None:
            check_file(file, source if name == "config.json" else file, shapes)


def saved_config(source: str | os.PathLike, **fields) -> PreTrainedConfig:
    """As `AutoConfig.from_pretrained`, of a folder that was looked at.

    Raises:
        ValueError: as `check_folder`, or values that no configuration has; the message names the folder.
        OSError: there is none.
    """
    check_folder(source)
    try:
        return AutoConfig.from_pretrained(source, **fields)
    except Exception as error:  # a damaged file makes transformers raise of all kinds
        of_the_hub = isinstance(error, OSError) and not os.path.isdir(source)
        if of_the_hub or (isinstance(error, ValueError | OSError) and str(source) in str(error)):
            raise
        raise ValueError(f"{source}: its config.json cannot be used ({error}). Save or download it again.") from error


def check_file(file: Path, source: object, shapes: dict | None = None) -> None:
    """Look at one JSON file beside a model; arguments as of `check_sizes`. Raises a ValueError that names it."""
    values = read_json(file)
    if file.name == "config.json":
        if not values:
            raise ValueError(
                f"{file}: expected the configuration of a model, got an empty object. Save or download it again."
            )
        check_sizes(values, source, shapes)
    elif file.name in IMAGES:
        check_sizes(values, source)
    elif file.name == "tokenizer.json" and not isinstance(values.get("model"), dict):
        raise ValueError(
            f"{file}: expected a tokenizer with a 'model', got an object with {sorted(values)[:8]}. Save or download it again."
        )


@contextmanager
def no_larger_than_stored(source: object) -> Iterator[None]:
    """A context in which a model that is built may have no more numbers than the weights of `source`, and those of a new head."""
    shapes = stored_shapes(source)
    token = _stored.set(sum(map(math.prod, shapes.values())) if shapes else None)
    try:
        yield
    finally:
        _stored.reset(token)


def check_built(model: nn.Module) -> None:
    """Within `no_larger_than_stored`: raise a ValueError for a model, not yet in memory, that its weights cannot fill."""
    stored = _stored.get()
    numbers = 0 if stored is None else sum(parameter.numel() for parameter in model.parameters())
    if stored is not None and numbers > 2 * stored + SPARE:
        raise ValueError(
            f"{type(model).__name__}: expected a model of about as many parameters as its weights have ({stored:,}), got a configuration that asks for "
            f"{numbers:,}. Nothing was loaded; repair the configuration."
        )


def stored_shapes(source: object) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in the safetensors files of a folder; {} where there are none, or damaged ones, which loading names."""
    shapes = {}
    folder = Path(source) if isinstance(source, str | os.PathLike) and os.path.isdir(source) else None
    for file in [] if folder is None else folder.glob("model*.safetensors"):
        try:
            with file.open("rb") as opened:
                length = struct.unpack("<Q", opened.read(8))[0]
                header = json.loads(opened.read(length)) if length <= min(LONGEST_JSON, file.stat().st_size) else {}
            shapes |= {name: tuple(facts["shape"]) for name, facts in header.items() if name != "__metadata__"}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error):
            return {}
    return shapes


def read_json(file: Path) -> dict:
    """The object in a JSON file. Raises a ValueError that names a file which has none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{file}: expected JSON, which this is not ({str(error)[:200]}). Save or download it again."
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: expected a JSON object, got {str(found)[:80]!r}. Save or download it again.")
    return found


def file_of(source: object, name: str) -> Path | None:
    """The file `name` of a folder or a cached Hub id; None where it has none."""
    if not isinstance(source, str | os.PathLike):
        return None
    if os.path.isdir(source):
        return Path(source, name) if Path(source, name).is_file() else None
    try:
        found = try_to_load_from_cache(str(source), name)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None
