"""Tokens are shown as the text that they came from, and words are what white space parts, in every script."""

import pytest
import torch
from conftest import tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from bcos_hf import Explanation, bcosify
from bcos_hf.models.bcos_words import display_tokens


def byte_level(corpus=("good film bad story", "good", "caf\u00e9")):
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<pad>", "<end>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([*corpus] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<end>")


def byte_fallback():
    pieces = [
        "<unk>",
        "\u2581",
        "\u2581good",
        "\u2581film",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *"goodfilmbast",
    ]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    made = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


TOKENIZERS = {"byte level": byte_level(), "byte fallback": byte_fallback()}
TEXTS = st.text(st.sampled_from("go d\n\t\u00e9\U0001f602\u4e2d\u3000\u0301"), min_size=1, max_size=12)


def shown(tokenizer, text):
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    return ids, vars(display_tokens(tokenizer, ids, torch.ones_like(ids)))


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
@example(text="I love \U0001f602 caf\u00e9")
@example(text="good film\nbad story\tgood")
@example(text="a\u3000b")
def test_words_are_the_words_of_the_text(name, text):
    ids, row = shown(TOKENIZERS[name], text)
    numbers = torch.zeros(1, 1)
    contributions = torch.arange(1.0, ids.shape[1] + 1)[None, None]
    made = Explanation(numbers, numbers.long(), contributions, numbers, numbers, **row)
    merged = made.merge_words()
    words = [word for word in merged.tokens[0] if word.strip()]
    assert merged.contributions.sum() == contributions.sum() and all(merged.tokens[0])
    assert words == text.split() or any(" " in token.strip() for token in made.tokens[0])  # a token may hold two words
    assert not any("\ufffd" in token for token in made.tokens[0])


def test_every_piece_of_a_character_is_that_character():
    _, row = shown(TOKENIZERS["byte level"], "\U0001f602")
    assert (
        row["tokens"] == [["\U0001f602"] * 4]
        and row["shared"] == [[False, True, True, True]]
        and row["words"] == [[0] * 4]
    )


def test_broken_bytes_and_special_tokens_are_shown():
    tokenizer = TOKENIZERS["byte level"]
    emoji = tokenizer("\U0001f602")["input_ids"]
    ids = torch.tensor([[emoji[1], tokenizer.eos_token_id, *emoji[:2], tokenizer.pad_token_id]])
    row = display_tokens(tokenizer, ids, torch.tensor([[1, 1, 1, 1, 0]]))
    assert row.tokens == [["\ufffd", "<end>", "\ufffd", "\ufffd", ""]] and row.words[0][-1] == -1


def test_saved_and_indexed(tmp_path):
    tokenizer = TOKENIZERS["byte level"]
    model = bcosify(tiny("gpt2", vocab_size=len(tokenizer)))
    made = model.explain(
        **tokenizer(["\U0001f602\ngood"], return_tensors="pt", return_token_type_ids=False), tokenizer=tokenizer
    )
    made.save(tmp_path / "e")
    for one in (made[0], Explanation.load(tmp_path / "e")):
        assert one.merge_words().tokens == [["\U0001f602", "good"]]
