"""Law 10: bad input raises an error that says what was expected and what came."""

import shutil

import pytest
import torch
import transformers
from conftest import DECODERS, EMBEDDERS, SIZES, TINY, batch_of, tiny

from bcos_hf import Explanation, bcosify
from bcos_hf.models import FAMILIES
from bcos_hf.models.bcos_layers import BcosLinear
from bcos_hf.models.bcos_saving import classes_of
from bcos_hf.training import bce_loss


@pytest.mark.parametrize("b", [0.5, float("nan"), float("inf"), -1, [1.5], "1.5", True])
def test_b_must_be_a_number_from_1(family, b):
    with pytest.raises(Exception, match="b"):
        bcosify(tiny(family), b=b)
    if not isinstance(b, list | str | bool):
        with pytest.raises(ValueError, match=">= 1"):
            bcosify(tiny(family), b=b)
        with pytest.raises(ValueError, match=">= 1"):
            BcosLinear(2, 2, b=b)


@pytest.mark.parametrize(
    "fields",
    [{"weight_norm": "l2"}, {"max_out": 0}, {"head_activation": "relu"}, {"inner_activation": "relu"}, {"logit_temperature": 0.0}, {"logit_bias": "odds"}],
)
def test_fields_are_checked(family, fields):
    with pytest.raises(ValueError, match="expected"):
        bcosify(tiny(family), **fields)


def test_fields_of_one_modality_are_checked():
    with pytest.raises(ValueError, match="pictures"):
        bcosify(tiny("bert"), input_encoding="normalized")
    for field in ("input_encoding", "batch_norm", "max_pool"):
        with pytest.raises(ValueError, match=f"{field}: expected one of"):
            bcosify(tiny("resnet"), **{field: "other"})


def test_what_is_not_supported_is_refused_with_a_list():
    opt = transformers.OPTForCausalLM(transformers.OPTConfig(num_hidden_layers=1, hidden_size=8, ffn_dim=8, num_attention_heads=2, vocab_size=9))
    decoder = transformers.BertLMHeadModel(transformers.BertConfig(**SIZES["bert"], **TINY, is_decoder=True))
    headless = transformers.BertForPreTraining(transformers.BertConfig(**SIZES["bert"], **TINY))
    for model in (opt, decoder, headless, bcosify(tiny("bert"))):
        with pytest.raises(ValueError, match="BertForSequenceClassification"):
            bcosify(model)


def test_wrong_class_for_from_standard():
    with pytest.raises(TypeError, match="RobertaConfig"):
        type(bcosify(tiny("roberta"))).from_standard(tiny("bert"))


def test_folders_without_whole_weights(family, tmp_path):
    tiny(family).save_pretrained(tmp_path / "standard")
    bcosify(tiny(family)).save_pretrained(tmp_path / "bcos")
    for name, load in (("standard", bcosify), ("bcos", transformers.AutoModel.from_pretrained)):
        weights = tmp_path / name / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])
        with pytest.raises(OSError, match="truncated"):
            load(tmp_path / name)
        weights.unlink()
        with pytest.raises(OSError, match=r"model\.safetensors"):
            load(tmp_path / name)
    shutil.rmtree(tmp_path / "bcos")
    with pytest.raises(OSError):
        bcosify(tmp_path / "bcos")


@pytest.mark.parametrize(
    "targets, message",
    [(3, "classes 0 to 2"), (-1, "classes 0 to 2"), ([0, 1], "shape"), ([[0], [1]], "shape"), ([0.5, 1.0, 2.0], "whole numbers"),
     (torch.zeros(3, 1, 1).long(), "shape")],
)  # fmt: skip
def test_targets(family, batch, targets, message):
    model = bcosify(tiny(family))
    with pytest.raises(ValueError, match=message):
        model.explain(**batch, targets=targets)
    with pytest.raises(ValueError, match=message):
        model.explain(**batch, contrast=targets)
    assert not any(getattr(module, "explaining", 0) for module in model.modules())


def test_text_inputs(text_family):
    model, batch = bcosify(tiny(text_family)), batch_of(text_family)
    empty = torch.zeros(0, 4, dtype=torch.long)
    for bad, message in (
        ({"input_ids": empty}, "N >= 1"),
        ({"input_ids": torch.zeros(2, 0, dtype=torch.long)}, "L >= 1"),
        ({}, "input_ids"),
        ({**batch, "attention_mask": batch["attention_mask"][:, :3]}, "attention_mask"),
        ({**batch, "attention_mask": torch.zeros_like(batch["attention_mask"])}, "all padding"),
    ):
        with pytest.raises(ValueError, match=message):
            model.explain(**bad)
    if text_family != "llama":  # whose positions have no end
        for read in (model, model.explain):
            with pytest.raises(ValueError, match="at most"):
                read(input_ids=torch.full((1, 50), 7))


def test_contrast_and_a_missing_head(family, batch):
    with pytest.raises(ValueError, match="contrast"):
        bcosify(tiny(family)).explain(**batch, contrast="median")
    module = FAMILIES[family]
    headless = next(cls for auto, cls in classes_of(module).items() if auto == "AutoModel")
    error, message = (ValueError, "prompts") if family in EMBEDDERS else (TypeError, "head")  # where the model without a head compares with texts
    with pytest.raises(error, match=message):
        headless.from_standard(tiny(family)).explain(**batch)


def test_heads_with_logits_at_every_token_need_a_position(text_family):
    batch, decoder = batch_of(text_family), text_family in DECODERS
    for position in (9,) if decoder else (None, 9):
        with pytest.raises(ValueError, match="position"):
            bcosify(tiny(text_family, "causal" if decoder else "token")).explain(**batch, position=position)


def test_labels():
    logits = torch.randn(3, 2)
    with pytest.raises(ValueError, match="classes 0 to 1"):
        bce_loss(logits, torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="shape"):
        bce_loss(logits, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="off_labels"):
        bce_loss(logits, torch.tensor([0, 1, 1]), off_labels="smooth")


def test_explanation_files(tmp_path):
    (tmp_path / "bad").write_bytes(b"not safetensors at all")
    with pytest.raises(ValueError, match=r"Explanation\.save"):
        Explanation.load(tmp_path / "bad")
