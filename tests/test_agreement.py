"""What a conversion keeps: all of it where the twin is the standard model; else what the definitions say."""

import pytest
import torch
from conftest import SAME, SAME_IMAGE, batch_of, tiny
from torch.nn import functional as F

from bcos_hf import bcosify
from bcos_hf.metrics.agreement import conversion_kept


def pair(family, head=None, same=True):
    standard = tiny(family, head)
    fields = (SAME_IMAGE if family in ("vit", "resnet") else SAME) if same else {"b": 1.5}
    return standard, bcosify(standard, **fields)


@pytest.mark.parametrize(
    ("family", "head"),
    [("bert", "sequence"), ("vit", "image"), ("bert", "token"), ("bert", "mlm"), ("llama", "causal")],
)
def test_a_twin_that_is_the_standard_model_keeps_all(family, head):
    kept = conversion_kept(*pair(family, head), [(batch_of(family), torch.tensor([0, 1, 2]))], mask_token_id=3)
    assert kept["agreement"]["mean"] == 1
    for name in ("accuracy", "perplexity"):
        if name in kept:
            assert kept[name] == pytest.approx(kept[f"standard_{name}"])


def test_an_encoder_that_is_the_standard_one_keeps_its_embeddings():
    standard = tiny("bert").base_model
    twin = bcosify(
        standard, **{key: value for key, value in SAME.items() if key != "head_activation"}, head_activation="keep"
    )
    assert conversion_kept(standard, twin, [(batch_of("bert"), None)])["cosine"]["mean"] == pytest.approx(1)


def test_accuracy_and_agreement_are_counted():
    standard, twin = pair("bert", same=False)
    batch, labels = batch_of("bert"), torch.tensor([0, -1, 2])
    with torch.no_grad():
        theirs, ours = (model(**batch).logits.argmax(-1) for model in (standard, twin))
    kept = conversion_kept(standard, twin, [(batch, labels)])
    assert (
        kept["agreement"]["mean"] == pytest.approx((theirs == ours).double().mean().item())
        and kept["agreement"]["n"] == 3
    )
    counted = labels >= 0
    assert kept["accuracy"]["mean"] == (ours == labels)[counted].double().mean().item() and kept["accuracy"]["n"] == 2
    assert kept["standard_accuracy"]["mean"] == (theirs == labels)[counted].double().mean().item()
    assert list(conversion_kept(standard, twin, [(batch, None)])) == ["agreement"]


def test_perplexity_is_that_of_the_next_tokens_without_padding():
    standard, twin = pair("llama", "causal", same=False)
    batch, surprises = batch_of("llama"), []
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        ids = ids[mask.bool()][None]
        with torch.no_grad():
            surprises.append(F.cross_entropy(twin(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none"))
    kept = conversion_kept(standard, twin, [(batch, None)])
    assert kept["perplexity"] == {"mean": pytest.approx(torch.cat(surprises).mean().exp().item(), rel=1e-4), "n": 18}


def test_the_standard_model_gets_its_own_images_and_errors_are_said():
    standard, twin = pair("resnet")
    x = torch.rand(4, 3, 16, 16, dtype=torch.float64)
    given = [({"pixel_values": x}, None)]
    assert conversion_kept(standard, twin, given)["agreement"]["mean"] == 1
    zero = conversion_kept(standard, twin, given, standard_pixels=lambda pixels: 0 * pixels)["agreement"]["mean"]
    with torch.no_grad():
        wanted = (standard(0 * x).logits.argmax(-1) == twin(pixel_values=x).logits.argmax(-1)).double().mean().item()
    assert zero == wanted
    with pytest.raises(ValueError, match="at least one batch"):
        conversion_kept(standard, twin, [])
    with pytest.raises(ValueError, match="mask_token_id: expected"):
        conversion_kept(*pair("bert", "mlm"), [(batch_of("bert"), None)])
