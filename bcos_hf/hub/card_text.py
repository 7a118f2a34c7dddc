"""A card's blocks, between marks: what we write is replaced at the next push, and what a person wrote beside it stays."""

import re

import yaml


HEADER = re.compile(r"\A---\s*\n(.*?)\n---\s*\n?", re.DOTALL)


def block(name: str, text: str) -> str:
    """`text` between the marks of the block `name`."""
    return f"<!-- bcos_hf:{name} -->\n{text.strip()}\n<!-- /bcos_hf:{name} -->"


def split_card(card: str) -> tuple[dict, str]:
    """The metadata and the body of a card. Raises a ValueError where its metadata is no YAML mapping."""
    found = HEADER.match(card)
    if not found:
        return {}, card
    try:
        metadata = yaml.safe_load(found[1]) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"model card: expected YAML between the first two '---' lines; it cannot be read ({error}). Repair or remove it.") from error
    if not isinstance(metadata, dict):
        raise ValueError(f"model card: expected a YAML mapping between the first two '---' lines, got {type(metadata).__name__}.")
    return metadata, card[found.end() :]


def merged_card(existing: str | None, metadata: dict, blocks: dict[str, str]) -> str:
    """A card with our metadata and blocks. Of an existing one all else stays: other keys, text between and around the blocks.

    A block that the existing card lacks goes to its end; tags are added to those there are.
    """
    old, body = split_card(existing or "")
    tags = list(dict.fromkeys([*(old.get("tags") or []), *metadata.get("tags", [])]))
    header = {**old, **metadata, **({"tags": tags} if tags else {})}
    for name, text in blocks.items():
        pattern = re.compile(rf"<!-- bcos_hf:{re.escape(name)} -->.*?<!-- /bcos_hf:{re.escape(name)} -->", re.DOTALL)
        made = block(name, text)
        body = pattern.sub(lambda _, made=made: made, body, count=1) if pattern.search(body) else f"{body.rstrip()}\n\n{made}\n"
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n\n{body.strip()}\n"
