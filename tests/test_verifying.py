"""verify blames what is not dynamic linear, and nothing else; conversion refuses an attention that it does not know; what is not finite raises."""

import pytest
import torch
import transformers
from conftest import EMBEDDERS, POSITION, batch_of, tiny
from huggingface_hub.dataclasses import strict
from transformers import ModernBertConfig, ModernBertForSequenceClassification

from bcos_hf import bcosify, verify
from bcos_hf.hub.exactness import exactness, exactness_sentence
from bcos_hf.hub.push import write_model_folder
from bcos_hf.models.bcos_conversion import Roles
from bcos_hf.models.configuration_bcos import BcosTextConfigMixin
from bcos_hf.models.modeling_bcos_text import BcosTextModelMixin


@strict
class NaiveConfig(BcosTextConfigMixin, ModernBertConfig):
    model_type = "naive_modernbert"


class Unsaid(BcosTextModelMixin, ModernBertForSequenceClassification):
    config_class = NaiveConfig
    roles = Roles(logits=("classifier",))


class Naive(Unsaid):
    """All attention projections as B-cos layers, and a product of two branches in the MLP."""

    roles = Roles(
        logits=("classifier",),
        bcos=[f"model.layers.{layer}.attn.{name}" for layer in (0, 1) for name in ("Wqkv", "Wo")],
    )


def modernbert():
    torch.manual_seed(0)
    sizes = dict(
        vocab_size=90,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
        num_labels=3,
    )
    tokens = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
    model = ModernBertForSequenceClassification(ModernBertConfig(**sizes, **tokens)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


def test_a_naive_family_is_refused_or_found_out(caplog):
    with pytest.raises(ValueError, match=r"attn.Wqkv: expected a linear layer of an attention"):
        Unsaid.from_standard(modernbert())
    blamed = ", ".join(rf"model.layers.{layer}.{name} \(\w+\)" for layer in (0, 1) for name in ("attn", "mlp"))
    with pytest.raises(ValueError, match=rf"no rule makes {blamed} dynamic linear"):
        Naive.from_standard(modernbert())
    model = Naive.from_standard(modernbert(), check_linear=False)
    inputs = {"input_ids": torch.randint(3, 90, (2, 7)), "attention_mask": torch.ones(2, 7).long()}
    found = verify(model, **inputs)
    assert (
        found.blamed == [f"model.layers.{layer}.{name}" for layer in (0, 1) for name in ("attn", "mlp")]
        and not found.exact
    )
    caplog.set_level("WARNING", "transformers")
    caplog.clear()
    model.explain(**inputs)
    model.explain(**inputs)
    assert caplog.text.count("bcos_hf.verify") == 1


def test_a_card_says_it_and_a_push_refuses(tmp_path, monkeypatch):
    naive, right = Naive.from_standard(modernbert(), check_linear=False), bcosify(tiny("bert").float())
    assert "model.layers.0.attn, model.layers.0.mlp" in exactness_sentence(
        naive
    ) and "was verified to be dynamic linear" in exactness_sentence(right)
    monkeypatch.setattr(
        "bcos_hf.models.modeling_bcos.copy_code", lambda *_: None
    )  # a class of this file has none that a folder could carry
    with pytest.raises(RuntimeError, match="expected exact explanations, so nothing is pushed"):
        write_model_folder(tmp_path, naive, "someone/naive")


def test_no_right_family_is_blamed(member):
    family, head = member
    model, position = bcosify(tiny(family, head)), POSITION.get(head)
    inputs = batch_of(family) | ({} if position is None else {"position": position})
    before = [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    found = verify(model, **inputs)
    assert found.exact and found.worst < 1e-8 and len(found.errors) > 4, found
    assert before == [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()]


def test_no_right_family_is_blamed_whatever_its_fields(family):
    """Tried on the input that cards and pushes are tried on, in single precision."""
    model = bcosify(tiny(family).float(), keep_biases=True, b=1.5, head_activation="keep", max_out=2)
    assert exactness(model).exact


@pytest.mark.parametrize("kind", ["clip", "siglip", "clip_resnet", "dual_encoder"])
def test_no_tower_is_blamed(kind):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **EMBEDDERS[kind])
    model = bcosify(transformers.AutoModel.from_config(config).eval(), convert_text=True)
    found = verify(model, pixel_values=torch.randn(2, 3, 16, 16), input_ids=torch.randint(3, 80, (2, 6)))
    assert found.exact and any("text" in name for name in found.errors), found


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_raises(family, value):
    model, batch = bcosify(tiny(family)), batch_of(family)
    if "pixel_values" in batch:
        broken = batch["pixel_values"].clone()
        broken[1, 0, 3, 3] = value
        with pytest.raises(
            ValueError, match=r"pixel_values: expected finite numbers, got NaN or infinity for inputs \[1\]"
        ):
            model.explain(broken)
    statistics = [buffer for name, buffer in model.named_buffers() if name.endswith("running_var")]
    with torch.no_grad():
        (statistics or list(model.parameters()))[-1].flatten()[0] = value
    with pytest.raises(ValueError, match="expected finite numbers, got NaN or infinity"):
        model.explain(**batch)
