"""Tokens as the text that they came from, and which of them are one word.

A token is a stretch of bytes. Byte-level vocabularies cut characters of several bytes (emoji, accents, other scripts); every piece of one is then shown
as the whole character, as the offsets of a fast tokenizer say it, and a word has that character once. A word ends where white space begins: blanks, tabs
and line breaks alike.
"""

import re
from dataclasses import dataclass, field

from torch import Tensor
from transformers.convert_slow_tokenizer import bytes_to_unicode


_BYTES = {character: bytes([byte]) for byte, character in bytes_to_unicode().items()}
_ONE_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # SentencePiece, of a character that its vocabulary lacks
# how the first byte of a character in UTF-8 begins -> its number of bytes
_LENGTHS = {
    **dict.fromkeys(range(0xC2, 0xE0), 2),
    **dict.fromkeys(range(0xE0, 0xF0), 3),
    **dict.fromkeys(range(0xF0, 0xF5), 4),
}
# how a tokenizer's decoder is called -> how its vocabulary writes words
_DECODERS = {"ByteLevel": "Ġ", "WordPiece": "##", "Metaspace": "▁", "ByteFallback": "▁"}


@dataclass
class DisplayTokens:
    """N lists of L entries each, one a token.

    Attributes:
        tokens: display texts, '' at padding.
        starts: whether a token begins a word.
        words: number of each token's word, -1 at padding.
        shared: whether a token begins with the character that the token before it ends with.
    """

    tokens: list[list[str]] = field(default_factory=list)
    starts: list[list[bool]] = field(default_factory=list)
    words: list[list[int]] = field(default_factory=list)
    shared: list[list[bool]] = field(default_factory=list)


def display_tokens(tokenizer, input_ids: Tensor, mask: Tensor) -> DisplayTokens:
    """What tokens [N, L] are shown as; `mask` [N, L] is 0 at padding."""
    marker, special, made = _marker(tokenizer), set(tokenizer.all_special_ids), DisplayTokens()
    for ids, keep in zip(input_ids.tolist(), mask.tolist(), strict=True):
        pieces = tokenizer.convert_ids_to_tokens(ids)
        is_special = [token in special for token in ids]
        row = [(str(piece), kept, own) for piece, kept, own in zip(pieces, keep, is_special, strict=True)]
        whole = [own or marker == "##" for own in is_special]
        shown = _shown(
            [None if alone or not kept else piece for (piece, kept, _), alone in zip(row, whole, strict=True)], marker
        )
        _add(made, row, shown, marker)
    return made


def _add(made: DisplayTokens, row: list[tuple[str, bool, bool]], shown: list[tuple[str, bool]], marker: str) -> None:
    """One text: pieces, whether each is kept and special; the text of each, and whether its first character was begun before."""
    texts, starts, words, shared, word, so_far = [], [], [], [], -1, ""
    after_special = True
    for (piece, kept, special), (text, cut) in zip(row, shown, strict=True):
        if special or marker == "##":
            text = piece if special else piece.removeprefix("##") or piece
            begins = special or not piece.startswith("##")
        else:
            begins = not cut and bool(so_far.strip()) and (text[:1].isspace() or so_far[-1:].isspace())
        begins = begins or after_special
        word += bool(kept and begins)
        if kept:
            so_far = text if begins else so_far + text[cut:]
        after_special = special or not kept
        display = text if special else text.strip() or text or " "
        texts.append(display if kept else "")
        starts.append(begins)
        words.append(word if kept else -1)
        shared.append(cut and kept and not special and display[:1] == text[:1])
    for column, values in zip(
        (made.tokens, made.starts, made.words, made.shared), (texts, starts, words, shared), strict=True
    ):
        column.append(values)


def _shown(pieces: list[str | None], marker: str) -> list[tuple[str, bool]]:
    """The characters that each piece has a part of, and whether the first of them was begun by a piece before it; ('', False) for None.

    Characters are cut at a None, a special token.
    """
    shown, run = [], []
    for piece in [*pieces, None]:
        if piece is not None:
            run.append(_bytes_of(piece, marker))
            continue
        shown += [*_characters(run), ("", False)]
        run = []
    return shown[:-1]


def _characters(run: list[bytes]) -> list[tuple[str, bool]]:
    """As `_shown`, of pieces that follow each other."""
    data, places, made = b"".join(run), [], []  # where each byte's character begins, and the character
    while len(places) < len(data):
        start = len(places)
        length = _LENGTHS.get(data[start], 1)
        try:
            character = data[start : start + length].decode()
        except UnicodeDecodeError:
            length, character = 1, "\ufffd"
        places += [(start, character)] * length
    at = 0
    for part in run:
        own = dict(places[at : at + len(part)])  # in order, each once
        made.append(("".join(own.values()), bool(own) and next(iter(own)) < at))
        at += len(part)
    return made


def _bytes_of(piece: str, marker: str) -> bytes:
    """The bytes of the text that a piece stands for."""
    if marker == "Ġ":
        known = [_BYTES.get(character) for character in piece]
        return piece.encode("utf-8", "replace") if None in known else b"".join(known)
    found = _ONE_BYTE.fullmatch(piece)
    return bytes.fromhex(found[1]) if found else piece.replace("▁", " ").encode("utf-8", "replace")


def _marker(tokenizer) -> str:
    """How the vocabulary writes words: '▁' (SentencePiece) or 'Ġ' (byte-level BPE) before a word, or '##' inside one (WordPiece)."""
    decoder = str(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None))
    for name, marker in _DECODERS.items():
        if name in decoder:
            return marker
    vocabulary = tokenizer.get_vocab()
    return max(("##", "Ġ", "▁"), key=lambda marker: sum(token.startswith(marker) for token in vocabulary))
