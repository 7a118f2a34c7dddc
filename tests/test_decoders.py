"""What is special about causal language models: the next token is explained, by what stands before it."""

import warnings

import pytest
import torch
from conftest import DECODERS, batch_of, same, tiny
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from bcos_hf import bcosify
from bcos_hf.hub.usage import run_usage, task_of


@pytest.fixture(params=sorted(DECODERS))
def decoder(request):
    return request.param


def test_the_last_token_is_explained_and_nothing_after_a_position_contributes(decoder):
    model, batch = bcosify(tiny(decoder, "causal"), b=1.5), batch_of(decoder)
    last = batch["attention_mask"].sum(1) - 1
    default, given = model.explain(**batch, targets=[[7, 8]] * 3), model.explain(**batch, targets=[[7, 8]] * 3, position=last)
    assert torch.equal(default.contributions, given.contributions)
    logits = model(**batch).logits
    torch.testing.assert_close(default.logits, logits[torch.arange(3), last], rtol=0, atol=1e-12)
    early = model.explain(**batch, targets=7, position=2)
    assert (early.contributions[..., 3:] == 0).all() and (early.contributions[..., :3] != 0).all()
    prefix = model.explain(input_ids=batch["input_ids"][:, :3], targets=7)
    torch.testing.assert_close(prefix.contributions, early.contributions[..., :3], rtol=0, atol=1e-12)


def test_why_this_token_rather_than_that(decoder):
    model, batch = bcosify(tiny(decoder, "causal")), batch_of(decoder)
    target, foil = (model.explain(**batch, targets=token) for token in (7, 8))
    both = model.explain(**batch, targets=7, contrast=8)
    torch.testing.assert_close(both.contributions, target.contributions - foil.contributions, rtol=0, atol=1e-12)


def test_texts_are_generated_as_before_and_every_step_can_be_explained(decoder):
    standard = tiny(decoder, "causal")
    twin, ids = bcosify(standard, **same(decoder)), batch_of(decoder)["input_ids"][:1]
    options = dict(max_new_tokens=5, do_sample=False, pad_token_id=0, eos_token_id=None)
    made = twin.generate(ids, **options, output_logits=True, return_dict_in_generate=True)
    assert torch.equal(made.sequences, standard.generate(ids, **options))
    for step, logits in enumerate(made.logits):
        explanation = twin.explain(input_ids=made.sequences[:, : ids.shape[1] + step])
        torch.testing.assert_close(explanation.logits, logits.double(), rtol=0, atol=1e-5)  # generate() gives float32
        assert explanation.targets.item() == made.sequences[0, ids.shape[1] + step] and explanation.relative_residual.item() < 1e-10


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_becomes_a_b_cos_layer_if_asked(decoder, tied, tmp_path):
    standard = tiny(decoder, "causal", tie_word_embeddings=tied)
    plain, bcos = bcosify(standard).float(), bcosify(standard, convert_lm_head=True).float()
    assert (plain.lm_head.b, bcos.lm_head.b) == (1.0, 1.1) and bcos.lm_head.weight_norm == "unit"
    assert bcos.explain(**batch_of(decoder)).relative_residual.max() < 1e-5
    bcos.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == tied
    assert torch.equal(loaded(**batch_of(decoder)).logits, bcos(**batch_of(decoder)).logits)


def test_every_way_of_attention_is_explained_alike(decoder):
    standard = tiny(decoder, "causal")
    made = {}
    for implementation in ("sdpa", "eager"):
        standard.set_attn_implementation(implementation)
        made[implementation] = bcosify(standard, b=1.5).explain(**batch_of(decoder)).contributions
    torch.testing.assert_close(made["sdpa"], made["eager"], rtol=0, atol=1e-5)  # eager's softmax is in float32


def test_the_loss_is_that_of_the_standard_model(decoder):
    standard, batch = tiny(decoder, "causal"), batch_of(decoder)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        twin = bcosify(standard, **same(decoder))
        torch.testing.assert_close(twin(**batch, labels=labels).loss, standard(**batch, labels=labels).loss, rtol=0, atol=1e-6)


def test_a_classifier_that_cannot_find_the_last_token_says_so(decoder):
    model, batch = bcosify(tiny(decoder)), batch_of(decoder)
    embeds = model.get_input_embeddings()(batch["input_ids"]).detach()
    with pytest.raises(ValueError, match="pad_token_id"):
        model.explain(inputs_embeds=embeds, attention_mask=batch["attention_mask"])
    model.config.pad_token_id = None
    with pytest.raises(ValueError, match="pad_token_id"):
        model.explain(**batch)
    whole = {name: value[:1] for name, value in batch.items()}
    by_words = model.explain(inputs_embeds=embeds[:1], targets=0)
    torch.testing.assert_close(by_words.contributions, model.explain(**whole, targets=0).contributions, rtol=0, atol=1e-12)


def test_gradients_of_ones_own_reach_the_norms_in_explanation_mode():
    model, batch = bcosify(tiny("llama", "causal"), b=1.5), batch_of("llama")
    with model.explanation_mode():
        model(**batch).logits.sum().backward()
    norm = model.model.norm
    with torch.no_grad():
        hidden = model.model(**batch).last_hidden_state / norm.weight
    grad = (hidden * model.lm_head.weight.sum(0)).sum((0, 1))
    torch.testing.assert_close(norm.weight.grad, grad, rtol=1e-6, atol=1e-8)


def tokenizer_of(vocabulary: int, **special) -> PreTrainedTokenizerFast:
    """Words 'w0', 'w1', ..., of which the first is padding."""
    made = Tokenizer(models.WordLevel({f"w{number}": number for number in range(vocabulary)}, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="w0", unk_token="w0", **special, model_input_names=["input_ids", "attention_mask"])


def test_the_example_of_a_card_runs(decoder, tmp_path):
    model = bcosify(tiny(decoder, "causal")).float()
    model.save_pretrained(tmp_path)
    tokenizer_of(90).save_pretrained(tmp_path)
    usage = run_usage(model, tmp_path, "org/model", "w7 w8 w9")
    explanation = model.explain(input_ids=torch.tensor([[7, 8, 9]]))
    first, *tokens = usage.output.splitlines()
    assert first == f"'w{explanation.targets.item()}' {explanation.explained_logits.item():.3f} = {explanation.constant.item():.3f} (constant)"
    assert tokens == [f"{value:+.3f} w{number}" for value, number in zip(explanation.contributions[0, 0].tolist(), (7, 8, 9), strict=True)]
    shown = model.explain(input_ids=torch.tensor([[7, 8, 9]]), targets=12, tokenizer=tokenizer_of(80))  # a head that is larger than the vocabulary
    assert len(shown.labels) == 90 and (shown.labels[12], shown.labels[85]) == ("w12", "token 85") and "w12" in shown.to_html()
    assert task_of(model)[0] == "text-generation" and 'AutoModelForCausalLM.from_pretrained("org/model")' in usage.code
