"""A class may be named by its label wherever it may be by its number, whatever the keys of id2label are."""

import numpy as np
import pytest
import torch
from conftest import batch_of, tiny
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedConfig

from bcos_hf import bcosify
from bcos_hf.baselines import input_x_gradient
from bcos_hf.data.one_split import class_numbers
from bcos_hf.models.bcos_class_names import class_names, class_number, distinct_names, written_class


NAMES = {3: "cat", 7: "dog", 8: "7"}  # starts at 3, has a gap, and a numeral


def test_names_are_numbers(family, batch):
    model = bcosify(tiny(family, id2label=NAMES, label2id={name: key for key, name in NAMES.items()}))
    by_number, by_name = (
        model.explain(**batch, targets=1, contrast=0),
        model.explain(**batch, targets="dog", contrast="cat"),
    )
    assert torch.equal(by_name.contributions, by_number.contributions) and by_name.labels == list(NAMES.values())
    assert model.explain(**batch, targets=["7", "cat", 1]).targets.tolist() == [[2], [0], [1]]
    assert model.explain(**batch, targets=np.array([["7", "cat"]] * 3)).targets.tolist() == [[2, 0]] * 3
    assert input_x_gradient(model, **batch, targets="dog").targets.tolist() == [[1]] * 3
    for argument in ("targets", "contrast"):
        with pytest.raises(ValueError, match=f"{argument}: expected one of the 3 classes, such as .*'cat'"):
            model.explain(**batch, **{argument: "zebra"})


@given(st.lists(st.text(max_size=3), min_size=1, max_size=6), st.integers(-5, 5), st.integers(1, 3))
def test_every_class_has_a_name_that_leads_to_it(names, start, step):
    config = PreTrainedConfig(id2label={start + step * number: name for number, name in enumerate(names)})
    assert class_names(config) == names and class_names(config, len(names) + 1) is None
    distinct = distinct_names(names)
    if len(set(distinct)) == len(names):
        for number, name in enumerate(distinct):
            assert names.count(names[number]) > 1 or class_number(name, names) == number


def test_what_a_person_wrote():
    assert written_class("1", ["cat", "dog"]) == 1 and written_class("dog", ["cat", "dog"]) == 1
    assert written_class("1", ["3", "1"]) == 1 and written_class("crane (2)", ["crane", "owl", "crane"]) == 2
    for text, names, message in (
        ("0", ["3", "1"], "expected one of the 2 classes"),  # where classes are called by numbers, a number is a name
        ("2", ["cat", "dog"], "from 0 to 1"),
        ("crane", ["crane", "owl", "crane"], r"2 classes; expected one of \['crane \(0\)', 'crane \(2\)'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            written_class(text, names)


def test_numbers_of_a_data_set_are_the_configurations():
    number = class_numbers(None, PreTrainedConfig(id2label=NAMES))
    assert [number(value) for value in (3, 7, 8, "dog", None)] == [0, 1, 2, 1, -1]
    with pytest.raises(ValueError, match="number of"):
        number(0)


def test_tokens_of_a_language_model_and_prompts():
    class Tokenizer:
        unk_token, unk_token_id = "?", 0

        def get_vocab(self):
            return {"?": 0, "cat": 7}

        def __call__(self, text, add_special_tokens):
            return {"input_ids": [5, 6] if text == "cats" else [0]}

        def convert_ids_to_tokens(self, ids):
            return [str(number) for number in ids]

    from bcos_hf.models.bcos_text import token_number

    assert token_number(Tokenizer(), 90, "targets", "cat") == 7
    for text in ("cats", "zebra"):
        with pytest.raises(ValueError, match=f"one token of the vocabulary, got '{text}'"):
            token_number(Tokenizer(), 90, "targets", text)
    with pytest.raises(ValueError, match="no names"):
        bcosify(tiny("gpt2", "causal")).explain(**batch_of("gpt2"), targets="cat")
