import gc
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import settings


settings.register_profile("patient", deadline=None)  # a loaded machine is slow, not wrong
settings.load_profile("patient")
torch.set_num_threads(1)  # models this small spend their time waiting for each other's threads
os.environ["OMP_NUM_THREADS"] = "1"  # in the processes that tests start, too
gc.freeze()  # what was imported stays: it need not be looked through at every collection


def pytest_addoption(parser):
    # pytest's own --fixtures lists fixtures (as --funcargs still does); here it names a folder of golden tensors
    own = parser.optparser._option_string_actions.pop("--fixtures", None)
    if own is not None:
        own.option_strings.remove("--fixtures")
    parser.addoption("--fixtures", dest="golden", default=str(Path(__file__).parent / "fixtures"), help="a folder of golden tensors")


_BERT = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
_VIT = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=16, patch_size=4)
_CLIP_TEXT = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32, vocab_size=90, max_position_embeddings=12, eos_token_id=89,
                  bos_token_id=88, pad_token_id=1)  # fmt: skip
TINY = dict(vocab_size=90, max_position_embeddings=40, num_labels=3)
DECODERS = {
    "gpt2": dict(n_embd=32, n_layer=2, n_head=4, n_inner=64, pad_token_id=0, bos_token_id=1, eos_token_id=2),
    "llama": dict(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        pad_token_id=0,
        attention_bias=True,
        mlp_bias=True,
    ),
}
ENCODERS = {"bert": _BERT, "roberta": _BERT, "distilbert": dict(dim=32, n_layers=2, n_heads=4, hidden_dim=64)}
TEXT = ENCODERS | DECODERS
IMAGE = {
    "vit": dict(_VIT, intermediate_size=64),
    "deit": dict(_VIT, intermediate_size=64, architectures=["DeiTForImageClassification"]),
    "dinov2": dict(_VIT, mlp_ratio=2, use_swiglu_ffn=True),
    "clip": dict(vision_config=dict(_VIT, intermediate_size=64), text_config=_CLIP_TEXT),
    "siglip": dict(vision_config=dict(_VIT, intermediate_size=64), text_config=_CLIP_TEXT),
    "simple_vit": dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, patch_size=4),
    "resnet": dict(embedding_size=8, hidden_sizes=[16, 32], depths=[2, 1], layer_type="bottleneck"),
    "cifar_resnet": dict(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 1]),
    "resnext": dict(embedding_size=16, hidden_sizes=[16, 32], depths=[2, 1], groups=2, width_per_group=128),
    "densenet": dict(embedding_size=8, growth_rate=4, depths=[2, 1], bottleneck=2),
    "convnext": dict(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, patch_size=2),
    "vgg": dict(hidden_sizes=[8, 16], depths=[1, 1], classifier_size=12, dropout=0.0),
}
SIZES = {**TEXT, **IMAGE}
_CLIP_VIT = dict(_VIT, intermediate_size=64, projection_dim=20)
_CLIP_RESNET = dict(width=4, depths=[2, 1], image_size=16, num_attention_heads=2, projection_dim=20)
# models that embed pictures, to be compared with texts; those of two parts have a text tower
EMBEDDERS = {
    "clip": dict(vision_config=_CLIP_VIT, text_config=_CLIP_TEXT, projection_dim=20),
    "siglip": dict(vision_config=_CLIP_VIT, text_config=dict(_CLIP_TEXT, hidden_size=32, projection_size=32)),
    "clip_resnet": dict(vision_config=_CLIP_RESNET, text_config=_CLIP_TEXT),
    "dual_encoder": dict(
        vision_config=dict(IMAGE["resnet"], model_type="resnet"), text_config=dict(_BERT, model_type="bert", vocab_size=90), projection_dim=20
    ),
    "clip_vision_model": _CLIP_VIT,
    "siglip_vision_model": _VIT | dict(intermediate_size=64),
    "clip_resnet_vision_model": _CLIP_RESNET,
}
HEADS = {
    "sequence": "AutoModelForSequenceClassification",
    "token": "AutoModelForTokenClassification",
    "mlm": "AutoModelForMaskedLM",
    "causal": "AutoModelForCausalLM",
    "image": "AutoModelForImageClassification",
}
MEMBERS = [(family, head) for family in ENCODERS for head in ("sequence", "token", "mlm")] + [(family, "image") for family in IMAGE]
MEMBERS += [(family, head) for family in DECODERS for head in ("sequence", "causal")]
POSITION = {"token": [0, 3, 6], "mlm": [0, 3, 6], "causal": [0, 3, 6]}  # whose logits are explained, for the batch below
# with these and B = 1 a twin is the standard model
SAME = dict(b=1.0, keep_biases=True, weight_norm="none", head_activation="keep")
SAME_IMAGE = dict(SAME, logit_bias=None, max_pool="keep", head_before_pooling=False)


def same(family):
    return SAME if family in TEXT else SAME_IMAGE


def randomise_statistics(model):
    """Running means and variances that are not those of a fresh norm, in place."""
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.2)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)


def tiny(family: str, head: str | None = None, **fields):
    """A small standard model with random weights, biases and statistics, float64, in evaluation mode."""
    torch.manual_seed(0)
    head = head or ("sequence" if family in TEXT else "image")
    labels = TINY if family in TEXT else {"num_labels": 3}
    config = transformers.AutoConfig.for_model(family, **{**labels, **SIZES[family], **fields})
    model = getattr(transformers, HEADS[head]).from_config(config).eval().double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
            elif "norm" in name.lower() or ".ln_" in name or "scale" in name or "lambda" in name:
                parameter.uniform_(0.5, 1.5)
            elif "word_embeddings" not in name and "position_embeddings" not in name:
                parameter.normal_(0, 0.2)
        randomise_statistics(model)
    return model


def batch_of(family: str) -> dict[str, torch.Tensor]:
    """Three texts of 9, 5 and 7 tokens, right padded; or three pictures."""
    generator = torch.Generator().manual_seed(1)
    if family in IMAGE:
        return {"pixel_values": torch.randn(3, 3, 16, 16, generator=generator, dtype=torch.float64)}
    ids = torch.randint(5, 90, (3, 9), generator=generator)
    mask = (torch.arange(9) < torch.tensor([9, 5, 7])[:, None]).long()
    return {"input_ids": ids.masked_fill(mask == 0, 1 if family == "roberta" else 0), "attention_mask": mask}


def explained_input(model, batch):
    """What the contributions are contributions of."""
    if "pixel_values" in batch:
        return model._input_encoding()(batch["pixel_values"])
    base, ids = model.base_model, batch["input_ids"]
    if model.config.model_type == "bcos_gpt2":
        return base.wte(ids) + base.wpe.weight[: ids.shape[1]]
    return base.embed_tokens(ids) if model.config.model_type == "bcos_llama" else base.embeddings(ids)


def run_python(folder, *command):
    """What `python *command` in `folder` did, offline, with its caches there; it must end well."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """datasets stores what it reads in this test's folder, and asks no network to count a download."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_UPDATE_DOWNLOAD_COUNTS", False)


@pytest.fixture
def run_recipe(own_cache, monkeypatch, capsys):
    """(folder, recipe, *arguments) -> what `python recipe *arguments` prints in `folder`: the script as it is, in this process, which has imported all."""

    def run(folder, recipe, *arguments):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [str(recipe), *arguments])
        runpy.run_path(str(recipe), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture(params=sorted(SIZES))
def family(request):
    return request.param


@pytest.fixture(params=sorted(TEXT))
def text_family(request):
    return request.param


@pytest.fixture(params=sorted(IMAGE))
def image_family(request):
    return request.param


@pytest.fixture(params=MEMBERS, ids="-".join)
def member(request):
    """(family, head), all there are."""
    return request.param


@pytest.fixture
def batch(family):
    return batch_of(family)
