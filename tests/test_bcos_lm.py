"""Folders of the authors' B-cos LM code: the published sizes by name and shape, small ones by what they compute, and what is refused.

The layout is that of tests/fixtures/lm_*.json (`name_map_bcos_to_standard`, `config`, `bcos_config`), whose logits test_reference_parity.py holds this to.
"""

import json

import pytest
import torch
import transformers
from conftest import batch_of, tiny
from safetensors.torch import save_file

from bcos_hf import bcosify
from bcos_hf.checkpoints import from_bcos_lm
from bcos_hf.models.bcos_layers import Bcos
from bcos_hf.models.modeling_bcos_bert import BcosBertForSequenceClassification


# by family: prefix, then the layers' own names: (plain projections), {B-cos layer: [rows, columns] in widths h and i}, norms
LAYER = {
    "bert": (
        "encoder.layer",
        [f"attention.self.{part}" for part in ("query", "key", "value")],
        {"attention.output.dense": "hh", "intermediate.dense": "ih", "output.dense": "hi"},
        ["attention.output.LayerNorm", "output.LayerNorm"],
    ),
    "distilbert": (
        "transformer.layer",
        [f"attention.{part}_lin" for part in "qkv"],
        {"attention.out_lin": "hh", "ffn.lin1": "ih", "ffn.lin2": "hi"},
        ["sa_layer_norm", "output_layer_norm"],
    ),
}
LAYER["roberta"] = LAYER["bert"]
HEAD = {"bert": ["bert.pooler.dense", "classifier"], "distilbert": ["pre_classifier", "classifier"], "roberta": ["classifier.dense", "classifier.out_proj"]}
CLASS = {"bert": "Bert", "distilbert": "DistilBert", "roberta": "Roberta"}
# what their configurations call the sizes
SIZES = {name: dict(h="hidden_size", i="intermediate_size", n="num_hidden_layers", a="num_attention_heads") for name in ("bert", "roberta")}
SIZES["distilbert"] = dict(h="dim", i="hidden_dim", n="n_layers", a="n_heads")
SMALL = dict(h=32, i=48, n=2, a=4, vocabulary=60, positions=20, labels=3)
BASE = dict(h=768, i=3072, n=12, a=12, vocabulary=30522, positions=512, labels=2)
# the published models, and the parameters of their standard twins without a head, less all biases, plus the head
PUBLISHED = {
    "bert": (BASE, 109_482_240 - 102_912 + 2 * 768),
    "distilbert": (BASE | dict(n=6), 66_362_880 - 51_456 + 768**2 + 2 * 768),
    "roberta": (BASE | dict(vocabulary=50265, positions=514), 124_645_632 - 768**2 - 768 - 102_144 + 768**2 + 2 * 768),
}


def names(family, h, i, n, vocabulary, positions, labels, **_) -> dict[str, tuple]:
    """Names and shapes of a B-cos sequence classifier."""
    made = {"word_embeddings.weight": (vocabulary, h), "position_embeddings.weight": (positions, h), "LayerNorm.weight": (h,)}
    made |= {} if family == "distilbert" else {"token_type_embeddings.weight": (2 if family == "bert" else 1, h)}
    made = {f"{family}.embeddings.{name}": shape for name, shape in made.items()}
    layers, plain, bcos, norms = LAYER[family]
    for layer in range(n):
        own = {f"{name}.weight": (h, h) for name in plain} | {f"{name}.weight": (h,) for name in norms}
        own |= {f"{name}.linear.weight": tuple({"h": h, "i": i}[letter] for letter in shape) for name, shape in bcos.items()}
        made |= {f"{family}.{layers}.{layer}.{name}": shape for name, shape in own.items()}
    return made | {f"{name}.linear.weight": (rows, h) for name, rows in zip(HEAD[family], (h, labels), strict=True)}


def config_of(family, **sizes) -> dict:
    """As saved: that of transformers 4.45, with the fields that their training adds."""
    made = {name: sizes[letter] for letter, name in SIZES[family].items()}
    made |= dict(model_type=family, architectures=[f"{CLASS[family]}ForSequenceClassification"], vocab_size=sizes["vocabulary"])
    made |= dict(max_position_embeddings=sizes["positions"], torch_dtype="float32", transformers_version="4.45.2", _name_or_path=f"{family}-base")
    made |= {} if family == "distilbert" else dict(type_vocab_size=2 if family == "bert" else 1, use_cache=True, position_embedding_type="absolute")
    made |= dict(id2label={str(i): f"class {i}" for i in range(sizes["labels"])}, label2id={f"class {i}": i for i in range(sizes["labels"])})
    return made | dict(bcos=True, b=1.5, bce=True, different_b_per_layer=False, b_list=[1.5] * sizes["n"])


def random_state(family) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in names(family, **SMALL).items()}


def saved(folder, state, config, file="model.safetensors"):
    (folder / "config.json").write_text(json.dumps(config))
    (save_file if file.endswith("safetensors") else torch.save)(state, folder / file)
    return folder


@pytest.mark.parametrize("family", sorted(PUBLISHED))
def test_every_published_size(tmp_path, family):
    sizes, parameters = PUBLISHED[family]
    state = {name: torch.zeros(()).expand(shape) for name, shape in names(family, **sizes).items()}  # stored as one number each
    model = from_bcos_lm(saved(tmp_path, state, config_of(family, **sizes), "pytorch_model.bin"))
    config = model.config
    assert type(model).__name__ == f"Bcos{CLASS[family]}ForSequenceClassification" and not model.training
    assert model.num_parameters() == parameters
    assert (config.b, config.weight_norm, config.keep_biases, config.bcos_eps, config.head_activation) == (1.5, "unit", False, 1e-3, "identity")
    assert config.id2label == {0: "class 0", 1: "class 1"} and config.logit_bias is None


@pytest.mark.parametrize("family", sorted(PUBLISHED))
def test_both_formats_take_every_tensor_as_it_is(tmp_path, family):
    state, config = random_state(family), config_of(family, **SMALL)
    for file in ("pytorch_model.bin", "model.safetensors"):
        (tmp_path / file).mkdir()
        made = from_bcos_lm(saved(tmp_path / file, state, config, file)).state_dict()
        assert made.keys() == {name.replace(".linear.", ".") for name in state}
        assert all(torch.equal(value, made[name.replace(".linear.", ".")]) for name, value in state.items())


def test_b_may_differ_by_layer_and_the_head_keeps_its_own(tmp_path):
    config = config_of("bert", **SMALL) | dict(different_b_per_layer=True, b_list=[1.25, 2.0])
    model = from_bcos_lm(saved(tmp_path, random_state("bert"), config))
    layers = model.bert.encoder.layer
    assert [layers[0].output.dense.b, layers[1].output.dense.b, model.bert.pooler.dense.b, model.classifier.b] == [1.25, 2.0, 1.5, 1.5]
    assert from_bcos_lm(tmp_path, b=2.0).classifier.b == 2.0


def test_it_is_saved_and_explained_like_any_other(tmp_path):
    model = from_bcos_lm(saved(tmp_path, random_state("bert"), config_of("bert", **SMALL) | dict(hidden_act="gelu_new")))
    assert model.config.hidden_act == "gelu"  # theirs is, whatever the configuration says
    ids = torch.randint(5, 60, (2, 7))
    assert model.double().explain(input_ids=ids).relative_residual.max() < 1e-8
    model.float().save_pretrained(tmp_path / "ours")
    assert torch.equal(BcosBertForSequenceClassification.from_pretrained(tmp_path / "ours")(ids).logits, model(ids).logits)


# what is wrong -> (change of the configuration, change of the tensors), what the error says
REFUSED = {
    "not B-cos": ({"bcos": False}, {}, "bcos true"),
    "no b": ({"b": None}, {}, r"missing: \['b'\]"),
    "b too small": ({"b": 0.5}, {}, "b: expected a finite number >= 1"),
    "b for other layers": ({"different_b_per_layer": True, "b_list": [1.5] * 5}, {}, "got 6 values"),
    "another head": ({"architectures": ["BertForMaskedLM"]}, {}, r"got \['BertForMaskedLM'\]"),
    "a decoder's configuration": ({"architectures": ["GPT2LMHeadModel"]}, {}, r"missing: .*wte.*unexpected: .*bert\."),
    "no architecture": ({"architectures": None}, {}, "got None"),
    "a tensor more": ({}, {"classifier.bias": torch.zeros(3)}, r"unexpected: \['classifier.bias'\]"),
    "another shape": ({}, {"classifier.linear.weight": torch.zeros(2, 32)}, r"classifier.weight: got shape \[2, 32\], expected \[3, 32\]"),
    "a conventional model": ({}, {"classifier.linear.weight": None}, r"missing: \['classifier.weight'\]"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_wrong_folders_are_refused_by_name(tmp_path, case):
    fields, tensors, message = REFUSED[case]
    state = {name: value for name, value in (random_state("bert") | tensors).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        from_bcos_lm(saved(tmp_path, state, config_of("bert", **SMALL) | fields))


class Malicious:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


DAMAGE = ["no config", "no weights", "no folder", "config is text", "config is a list", "b is missing"]


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("damage", [*DAMAGE, "malicious", "truncated", "text", "empty"])
def test_a_folder_that_is_none_of_theirs_is_refused_and_nothing_in_it_is_run(tmp_path, damage, file):
    folder, trace = tmp_path / "model", tmp_path / "trace"
    folder.mkdir()
    saved(folder, random_state("bert"), config_of("bert", **SMALL), file)
    config, weights = folder / "config.json", folder / file
    if damage == "malicious":
        torch.save({"classifier.linear.weight": Malicious(trace)}, weights)
    elif damage in ("truncated", "text", "empty"):
        weights.write_bytes({"truncated": weights.read_bytes()[:-3000], "text": b"not a checkpoint", "empty": b""}[damage])
    elif damage in ("no config", "no weights"):
        (config if damage == "no config" else weights).unlink()
    elif damage == "no folder":
        folder = tmp_path / "elsewhere"
    else:
        config.write_text(
            {"config is text": "no json", "config is a list": "[1]"}.get(damage, '{"architectures": ["BertForSequenceClassification"], "bcos": true}')
        )
    with pytest.raises(ValueError, match="Expected a folder saved by the B-cos LM code"):
        from_bcos_lm(folder)
    assert not trace.exists()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("said", [True, False])
def test_a_decoder_with_a_b_cos_head_of_its_own(tmp_path, family, said):
    """Their B-cos LM head is a parameter of its own, `lm_head.linear.weight`, although the configuration says that it is tied."""
    twin = bcosify(tiny(family, "causal").float(), convert_lm_head=True, tie_word_embeddings=False, b=1.25)
    with torch.no_grad():
        twin.lm_head.weight.normal_()
    layers = {name for name, layer in twin.named_modules() if isinstance(layer, Bcos) and (layer.b != 1 or name == "lm_head")}
    place = {f"{name}.weight": f"{name}.linear.weight" for name in layers}
    state = {place.get(name, name): value.clone() for name, value in twin.state_dict().items()}
    config = {name: value for name, value in twin.config.to_dict().items() if name in transformers.AutoConfig.for_model(family).to_dict()}
    config |= {"architectures": [type(twin).__name__.removeprefix("Bcos")], "model_type": family, "tie_word_embeddings": True, "b": 1.25, "bcos": True}
    loaded = from_bcos_lm(saved(tmp_path, state, config | ({"bcos_lm_head": True} if said else {})))
    batch = batch_of(family)
    assert torch.equal(loaded(**batch).logits, twin(**batch).logits) and loaded.lm_head.weight is not loaded.get_input_embeddings().weight
    assert loaded.explain(**batch).relative_residual.max() < 1e-4
