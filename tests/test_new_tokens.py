"""After new tokens the head of a language model is still what it was: old logits stay, contributions add up, saved and loaded it is the same."""

import pytest
import torch
import transformers
from conftest import DECODERS, ENCODERS, HEADS, batch_of, tiny

from bcos_hf import bcosify


CASES = [(family, "mlm", {}) for family in ENCODERS]
CASES += [(family, "causal", {"convert_lm_head": converted}) for family in DECODERS for converted in (False, True)]


@pytest.mark.parametrize(("tied", "keep_biases", "size"), [(False, True, 97), (True, False, 97), (True, True, 80)])
@pytest.mark.parametrize(
    ("family", "head", "fields"), CASES, ids=lambda value: "converted" if value == {"convert_lm_head": True} else None
)
def test_new_tokens(family, head, fields, tied, keep_biases, size, tmp_path):
    model = bcosify(tiny(family, head, tie_word_embeddings=tied), b=2.0, keep_biases=keep_biases, **fields)
    batch, kind, kept = batch_of(family), type(model.get_output_embeddings()), min(size, 90)
    batch["input_ids"] = batch["input_ids"].clamp_max(kept - 1)
    before = model(**batch).logits[..., :kept]
    model.resize_token_embeddings(size)
    after, output = model(**batch).logits, model.get_output_embeddings()
    assert type(output) is kind and output.out_features == size == after.shape[-1]
    assert (output.weight is model.get_input_embeddings().weight) == tied
    torch.testing.assert_close(after[..., :kept], before, rtol=0, atol=1e-12)
    explained = model.explain(**batch, targets=size - 1, position=2)
    assert explained.relative_residual.max() < 1e-10
    model.save_pretrained(tmp_path)
    loaded = getattr(transformers, HEADS[head]).from_pretrained(tmp_path, dtype=torch.float64)
    assert torch.equal(loaded(**batch).logits, after)


def test_a_head_of_several_rows_a_token_is_refused():
    model = bcosify(tiny("llama", "causal", tie_word_embeddings=False), convert_lm_head=True, max_out=2)
    with pytest.raises(ValueError, match="max_out=2"):
        model.resize_token_embeddings(97)
