"""The laws, for models whose image embedding is compared with texts: CLIP with both kinds of towers and SigLIP, whole or the image tower alone."""

import copy

import pytest
import torch
import transformers
from conftest import EMBEDDERS, SIZES, randomise_statistics
from test_saving import run_without_bcos_hf
from torch.nn import functional as F

from bcos_hf import Explanation, bcosify
from bcos_hf.models.modeling_bcos_dual_encoder import TOWERS, BcosDualEncoderConfig
from bcos_hf.models.modeling_bcos_image_text import cosine_power_score, unit
from bcos_hf.models.modeling_dual_encoder import DualEncoderModel


WITH_TEXT = [family for family, sizes in EMBEDDERS.items() if "text_config" in sizes]
CONVOLUTIONAL = [family for family in EMBEDDERS if "resnet" in family or family == "dual_encoder"]
RESNETS = [family for family in EMBEDDERS if "resnet" in family]
SAME = dict(b=1.0, keep_biases=True)


def standard_of(family):
    """A small standard model with random weights, biases and statistics, float64, in evaluation mode."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **copy.deepcopy(EMBEDDERS[family]))
    vision = family == "clip_vision_model"
    model = (transformers.CLIPVisionModelWithProjection._from_config(config) if vision else transformers.AutoModel.from_config(config)).eval().double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
            elif "norm" not in name and "bn" not in name and parameter.dim() > 1:
                parameter.normal_(0, 0.2)
        randomise_statistics(model)
    return model


def pictures(side=64):
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def pictures_for(family):
    return pictures(64 if family in CONVOLUTIONAL else 16)


def prompts(family):
    """What makes four texts for explain()."""
    generator = torch.Generator().manual_seed(2)
    if family in WITH_TEXT:
        ids = torch.randint(2, 80, (4, 7), generator=generator)
        ids[:, -1] = 89
        return {"input_ids": ids}
    width = 32 if family.startswith("siglip") else 20
    return {"text_embeds": torch.randn(4, width, generator=generator, dtype=torch.float64)}


def embed(model, x, **inputs):
    """Image embeddings of a standard model."""
    if hasattr(model, "get_image_features"):
        return model.get_image_features(pixel_values=x, **inputs).pooler_output
    output = model(x, **inputs)
    return output.image_embeds if hasattr(output, "image_embeds") else output.pooler_output


def text_embeds(model, given):
    return given["text_embeds"] if "text_embeds" in given else model.get_text_features(given["input_ids"]).pooler_output


def test_any_tower_of_pictures_goes_with_a_text_encoder():
    for tower in TOWERS:
        vision = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(tower, **SIZES[tower]))
        text = transformers.AutoModel.from_config(transformers.AutoConfig.for_model("bert", **SIZES["bert"], vocab_size=90))
        standard = DualEncoderModel.from_towers(vision, text, projection_dim=20).double()
        torch.testing.assert_close(standard.text_model.embeddings.word_embeddings.weight.float(), text.embeddings.word_embeddings.weight)
        x, ids = pictures(16), torch.randint(0, 90, (2, 5))
        torch.testing.assert_close(bcosify(standard, **SAME, max_pool="keep")(ids, x).logits_per_image, standard(ids, x).logits_per_image)
        assert bcosify(standard).explain(x, ids, torch.ones_like(ids)).relative_residual.max() < 1e-9
    with pytest.raises(ValueError, match="expected an image tower of"):
        BcosDualEncoderConfig(vision_config={"model_type": "swin"})


@pytest.fixture(params=sorted(EMBEDDERS))
def family(request):
    return request.param


def same(family):
    more = {"dual_encoder": {"max_pool": "keep", "head_activation": "keep"}}.get(family, {"keep_positions": True} if family in RESNETS else {})
    return SAME | more


def test_b_1_with_biases_and_positions_is_the_standard_model(family):
    standard, x = standard_of(family), pictures_for(family)
    before = {name: value.clone() for name, value in standard.state_dict().items()}
    twin = bcosify(standard, **same(family))
    torch.testing.assert_close(twin.image_embeds(x), embed(standard, x), rtol=0, atol=1e-10)
    if family in WITH_TEXT:
        inputs = {"pixel_values": x, **prompts(family)}
        torch.testing.assert_close(twin(**inputs).logits_per_image, standard(**inputs).logits_per_image, rtol=0, atol=1e-8)
        both = bcosify(standard, **same(family), convert_text=True)
        torch.testing.assert_close(both(**inputs).logits_per_image, standard(**inputs).logits_per_image, rtol=0, atol=1e-8)
    assert all(torch.equal(value, before[name]) for name, value in standard.state_dict().items())


@pytest.mark.parametrize("fields", [{}, {"b": 1.5, "keep_biases": True}, {"b": [1.25, 2.0]}, {"weight_norm": "unit", "max_out": 2}, {"input_encoding": "none"}])
def test_contributions_add_up_to_the_cosine(family, fields):
    positions = {"keep_positions": fields.get("keep_biases", False)} if family in RESNETS else {}
    model, x, given = bcosify(standard_of(family), **fields, **positions), pictures_for(family), prompts(family)
    made = model.explain(x, **given, targets=[[0, 1, 2, 3]] * 3)
    torch.testing.assert_close(made.logits, F.cosine_similarity(model.image_embeds(x)[:, None], text_embeds(model, given)[None], dim=-1))
    torch.testing.assert_close(made.contributions.flatten(2).sum(-1) + made.constant, made.logits, rtol=0, atol=1e-9)
    total = torch.einsum("nkx,nx->nk", made.weights.flatten(2), model._input_encoding()(x).flatten(1)) + made.constant
    torch.testing.assert_close(total, made.logits, rtol=0, atol=1e-9)


def test_targets_batch_mates_contrast_and_labels(family):
    model, x, given = bcosify(standard_of(family)), pictures_for(family), prompts(family)
    made = model.explain(x, **given, targets=[[0, 1, 2, 3]] * 3, prompts=list("abcd"))
    one = model.explain(x[1:2], **given, targets=2)
    torch.testing.assert_close(one.contributions[0, 0], made.contributions[1, 2])
    against = model.explain(x, **given, targets=0, contrast=1)
    torch.testing.assert_close(against.contributions[:, 0], made.contributions[:, 0] - made.contributions[:, 1])
    assert made.quantity == "cosine" and "cosine" in made.to_html() and "sigmoid" not in made.to_html()
    assert made.labels == list("abcd") and model.explain(x, **given).targets[:, 0].tolist() == made.logits.argmax(1).tolist()


def test_explanation_mode_changes_no_value_and_float32_leaves_rounding_only(family):
    model, x = bcosify(standard_of(family), b=1.5).float(), pictures_for(family).float()
    given = {name: value.float() if value.is_floating_point() else value for name, value in prompts(family).items()}
    plain = model.image_embeds(x)
    with model.explanation_mode():
        assert torch.equal(model.image_embeds(x), plain)
    assert model.explain(x, **given).relative_residual.max() <= 1e-5
    assert not any(module.training for module in model.modules()) and all(parameter.requires_grad for parameter in model.parameters())


def test_larger_pictures(family):
    model, x = bcosify(standard_of(family), **same(family)), pictures(128 if family in CONVOLUTIONAL else 32)
    made = model.explain(x, **prompts(family), **({} if family in CONVOLUTIONAL else {"interpolate_pos_encoding": True}))
    assert made.contributions.shape[2:] == x.shape[2:] and made.relative_residual.max() < 1e-9


def test_round_trip(family, tmp_path):
    model = bcosify(standard_of(family)).float()
    model.save_pretrained(tmp_path)
    classes = [type(model), *([transformers.AutoModel] if family != "clip_vision_model" else [])]
    classes += [transformers.AutoModelForZeroShotImageClassification] if family in WITH_TEXT else []
    for cls in classes:
        loaded = cls.from_pretrained(tmp_path)
        assert type(loaded) is type(model) and loaded.state_dict().keys() == model.state_dict().keys()
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())


REMOTE = """
from transformers import AutoModel
for folder in sys.argv[1:]:
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    model.explain(**torch.load(folder + "/inputs.pt")).save(folder + "/remote.safetensors")
assert "bcos_hf" not in sys.modules
"""


def test_remote_code_needs_no_bcos_hf(tmp_path):
    models = {name: bcosify(standard_of(name)).float() for name in EMBEDDERS if name != "clip_vision_model"}  # whose projection AutoModel leaves out
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        inputs = {"pixel_values": pictures_for(name), **prompts(name)}
        torch.save({key: value.float() if value.is_floating_point() else value for key, value in inputs.items()}, tmp_path / name / "inputs.pt")
    run_without_bcos_hf(tmp_path, REMOTE, models)
    for name, model in models.items():
        remote, here = Explanation.load(tmp_path / name / "remote.safetensors"), model.explain(**torch.load(tmp_path / name / "inputs.pt"))
        assert torch.equal(remote.logits, here.logits) and torch.equal(remote.contributions, here.contributions)


@pytest.mark.parametrize("family", WITH_TEXT)
def test_the_text_tower_stays_or_is_explained_too(family):
    standard, x, ids = standard_of(family), pictures_for(family), prompts(family)["input_ids"]
    model, both = bcosify(standard), bcosify(standard, convert_text=True, b=1.5)
    torch.testing.assert_close(text_embeds(model, {"input_ids": ids}), text_embeds(standard, {"input_ids": ids}), rtol=0, atol=0)
    made = both.explain_text(ids, both.image_embeds(x), targets=[[0, 1, 2]] * 4)
    torch.testing.assert_close(made.logits.T, both.explain(x, ids).logits)
    torch.testing.assert_close(made.contributions.sum(-1) + made.constant, made.logits, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="convert_text=True"):
        model.explain_text(ids, model.image_embeds(x))


def slow_score(cosines, power, max_normalise):
    """For each picture and prompt: the mean over positions of c |c|^(p-1), with c relative to the largest |c| if asked for."""
    made = torch.zeros(cosines.shape[0], cosines.shape[2], dtype=cosines.dtype)
    for n, k in torch.cartesian_prod(torch.arange(made.shape[0]), torch.arange(made.shape[1])).tolist():
        column = cosines[n, :, k].tolist()
        largest = max(abs(c) for c in column) if max_normalise else 1.0
        made[n, k] = sum(c / largest * abs(c / largest) ** (power - 1) for c in column) / len(column)
    return made


@pytest.mark.parametrize("power", [1, 7, 19])
@pytest.mark.parametrize("max_normalise", [False, True])
@pytest.mark.parametrize("family", RESNETS)
def test_single_positions_are_read_before_the_pool(family, power, max_normalise):
    model, x, given = bcosify(standard_of(family)), pictures_for(family), prompts(family)
    cosines = unit(model.position_embeds(x)) @ unit(text_embeds(model, given)).T
    made = model.explain(x, **given, targets=[[0, 1, 2, 3]] * 3, unpool=True, cosine_power=power, max_normalise=max_normalise)
    torch.testing.assert_close(made.logits, slow_score(cosines.detach(), power, max_normalise))
    torch.testing.assert_close(made.contributions.flatten(2).sum(-1) + made.constant, made.logits, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", ["clip", "clip_vision_model", "clip_resnet"])
def test_bad_input_says_so(family):
    model, x, given = bcosify(standard_of(family)), pictures_for(family), prompts(family)
    bad = [({}, "expected"), ({"text_embeds": torch.zeros(4, 5).double()}, r"\[prompts, 20\], got \[4, 5\]"), ({"text_embeds": torch.zeros(0, 20)}, "prompts")]
    bad += [({**given, "prompts": ["one"]}, "expected 4 texts"), ({**given, "targets": 4}, "expected classes 0 to 3")]
    bad += [({**given, **prompts("clip_resnet_vision_model")}, "either")] if family in WITH_TEXT else []
    bad += [({**given, "unpool": True, "cosine_power": 0.5}, "cosine_power: expected a number >= 1" if family in RESNETS else "only CLIP's ResNets")]
    for arguments, message in bad:
        with pytest.raises(ValueError, match=message):
            model.explain(x, **arguments)


def test_cosine_power_of_a_blind_picture_is_zero_and_no_nan():
    assert torch.equal(cosine_power_score(torch.zeros(1, 4, 2), 7, True), torch.zeros(1, 2))
