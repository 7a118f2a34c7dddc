"""Law 11: the golden tensors of the authors' own code are met, for every file of a fixtures folder (`--fixtures DIR`), by its `kind` and settings.

Origin of the data: tests/fixtures/*.json name repository, commit, file and class.
"""

import json
import re
from pathlib import Path

import pytest
import torch
from parity_clip import clip_tower
from parity_gradient_to_image import gradient_image
from parity_language_models import decoder, encoder, perturbation
from parity_localisation import localisation
from parity_networks import NETWORKS
from parity_sequence_pointing import sequence_pointing
from safetensors.torch import load_file
from torch import nn
from transformers import activations

from bcos_hf import explanation_mode
from bcos_hf.models import bcos_batch_norm, bcos_norms
from bcos_hf.models.bcos_activations import gated
from bcos_hf.models.bcos_layers import BcosConv2d, BcosLinear


LAYER_FIELDS = ("in_features", "out_features", "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "bias", "b", "max_out")


class Golden:
    """One fixture: its settings, its tensors, and which of them were compared."""

    def __init__(self, path: Path) -> None:
        self.path, self.settings = path, json.loads(path.read_text())
        self.tensors, self.seen = load_file(path.with_suffix(".safetensors")), set()
        self.kind = self.settings["kind"]

    def get(self, key: str) -> torch.Tensor:
        self.seen.add(key)
        return self.tensors[key]

    def other(self, named: str) -> "Golden":
        """The fixture beside this one whose file name `named` begins with."""
        return Golden(self.path.with_name(named.split()[0]).with_suffix(".json"))

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        return {key.removeprefix(prefix): self.get(key) for key in self.tensors if key.startswith(prefix)}

    def meets(self, key: str, ours: torch.Tensor, gradient: bool | None = None, relative_noise: float = 0.0) -> None:
        reference = self.get(key)
        gradient = "grad" in key if gradient is None else gradient
        allowed = (5e-5 if gradient else 1e-5) * reference.abs().max().item()
        noise = self.settings.get("noise_floor", {}).get(key, {}).get("max_abs_diff_f32_vs_f64", relative_noise * reference.abs().max().item())
        assert ours.shape == reference.shape, f"{self.path.name} {key}: expected {list(reference.shape)}, got {list(ours.shape)}"
        difference = (ours.detach() - reference).abs().max().item()
        assert difference <= max(allowed, 5 * noise, 1e-12), f"{self.path.name} {key}: differs by {difference:.2e}, allowed {max(allowed, 5 * noise):.2e}"


def pytest_generate_tests(metafunc):
    folder = Path(metafunc.config.getoption("golden"))
    metafunc.parametrize("path", sorted(folder.glob("*.json")) or [folder], ids=lambda path: path.stem)


def test_reference(path):
    if path.is_dir() or not path.exists():
        pytest.fail(f"{path}: expected a folder with golden tensors (NAME.json + NAME.safetensors)")
    kind = json.loads(path.read_text())["kind"]
    check = next((check for pattern, check in KINDS.items() if re.fullmatch(pattern, kind)), None)
    assert check, f"{path}: unknown kind {kind!r}, expected one of {sorted(KINDS)}"
    golden = Golden(path)
    check(golden)
    left = set(golden.tensors) - golden.seen
    assert not left, f"{path.name}: never compared: {sorted(left)[:10]}"


def both_modes(golden: Golden, prefix: str, layer: nn.Module) -> None:
    """Output and gradients of a layer, in ordinary and in explanation mode."""
    x, cotangent = golden.get(f"{prefix}x").requires_grad_(), golden.get(f"{prefix}r")
    state = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    for mode in ("train_grad", "expl_grad"):
        for name, buffer in layer.named_buffers():
            buffer.copy_(state[name])
        with explanation_mode(layer) if mode == "expl_grad" else torch.enable_grad():
            y = layer(x)
        golden.meets(f"{prefix}y", y)
        wanted = [key.removeprefix(f"{prefix}{mode}/") for key in golden.tensors if key.startswith(f"{prefix}{mode}/")]
        sources = {"x": x, **dict(layer.named_parameters())}
        grads = torch.autograd.grad((y * cotangent).sum(), [sources[name.removeprefix("linear.")] for name in wanted])
        for name, grad in zip(wanted, grads, strict=True):
            golden.meets(f"{prefix}{mode}/{name}", grad)


def with_state(golden: Golden, prefix: str, layer: nn.Module) -> nn.Module:
    state = {key.removeprefix("linear."): value for key, value in golden.under(f"{prefix}state/").items()}
    if "bias" not in state and getattr(layer, "bias", None) is not None:
        layer.bias = None
    layer.load_state_dict(state, strict=True)
    return layer.eval()


def cases(make):
    def run(golden: Golden) -> None:
        for name, case in golden.settings["cases"].items():
            layer = with_state(golden, f"{name}/", make(case, golden.tensors[f"{name}/x"]))
            both_modes(golden, f"{name}/", layer.train(bool(case.get("train"))))

    return run


def bcos_layer(cls, **fixed):
    return lambda case, x: cls(**{name: value for name, value in case.items() if name in LAYER_FIELDS}, **fixed)


def lm_module(case, x):
    kind = case["kind"]
    if kind == "BcosLinear":
        return bcos_layer(BcosLinear, weight_norm="unit", eps=1e-3)(case, x)
    gates = {"BcosGELU (erf)": activations.GELUActivation, "BcosNewGELU (tanh)": activations.NewGELUActivation, "BcosSiLU": nn.SiLU}
    if kind in gates:
        return gated(gates[kind]())
    if "LayerNorm" in kind:
        return bcos_norms.BcosLayerNorm(case["normalized_shape"], eps=case["eps"])
    assert "RMSNorm" in kind, f"unknown module {kind!r}"
    return bcos_norms.BcosRMSNorm(x.shape[-1], eps=case["eps"])


def centred_norm(case, x):
    if case["kind"].startswith("gelu"):
        return gated(nn.GELU())
    if case["kind"].startswith("layernorm"):
        return bcos_norms.BcosLayerNorm(case["normalized_shape"], eps=case["eps"])
    assert case["kind"].startswith("groupnorm"), f"unknown norm {case['kind']!r}"
    return bcos_norms.BcosGroupNorm(case["num_groups"], case["num_channels"], eps=case["eps"])


def v2_norm(case, x):
    channels, eps, groups = case["channels"], case["eps"], re.search(r"\((\d+)\)", case["cls"])
    made = {
        "DetachablePositionNorm2d": lambda: bcos_norms.PositionNorm2d(channels, eps),
        "PositionNormUncentered2d": lambda: bcos_norms.PositionNorm2d(channels, eps, centred=False),
        "GNLayerNormUncentered2d": lambda: bcos_norms.UncenteredGroupNorm(1, channels, eps),
        "GNInstanceNormUncentered2d": lambda: bcos_norms.UncenteredGroupNorm(channels, channels, eps),
        "GroupNormUncentered2d": lambda: bcos_norms.UncenteredGroupNorm(int(groups[1]), channels, eps),
        "DetachableGNInstanceNorm2d": lambda: bcos_norms.BcosGroupNorm(channels, channels, eps),
        "DetachableGNLayerNorm2d": lambda: bcos_norms.BcosGroupNorm(1, channels, eps),
        "DetachableGroupNorm2d": lambda: bcos_norms.BcosGroupNorm(int(groups[1]), channels, eps),
        "BatchNormUncentered2d": lambda: bcos_batch_norm.UncenteredBatchNorm2d(channels, eps),
        "AllNormUncentered2d": lambda: bcos_batch_norm.UncenteredAllNorm2d(eps),
    }
    return made[case["cls"].split("(")[0]]()


def batch_norm(golden: Golden) -> None:
    standard = golden.under("standard/")
    eps, momentum = golden.settings["eps"], golden.settings["momentum"]
    plain = nn.BatchNorm2d(len(standard["weight"]), eps, momentum).eval()
    plain.load_state_dict(standard)
    variants = sorted({key.split("/")[0] for key in golden.tensors if "/eval/" in key})
    for variant in variants:
        for mode in ("eval", "train"):
            norm = bcos_batch_norm.UncenteredBatchNorm2d(len(standard["weight"]), eps, momentum)
            with_state(golden, f"{variant}/eval/", norm)
            both_modes(golden, f"{variant}/{mode}/", norm.train(mode == "train"))
            if mode == "train":
                golden.meets(f"{variant}/train/running_var_after", norm.running_var)
        if variant == "BnUncV2":
            parts = {name: value for name, value in standard.items() if name != "num_batches_tracked"}
            golden.meets(f"{variant}/eval/state/bias", bcos_batch_norm.folded_bias(**parts, eps=eps))
            golden.meets("standard_out/y", plain(golden.tensors[f"{variant}/eval/x"]))


KINDS = {
    "layer_bcosify_conv2d": cases(bcos_layer(BcosConv2d)),
    "layer_bcosify_linear": cases(bcos_layer(BcosLinear)),
    "layer_v2_bcos_conv2d": cases(bcos_layer(BcosConv2d, weight_norm="unit")),
    "layer_v2_bcos_linear": cases(bcos_layer(BcosLinear, weight_norm="unit")),
    "layer_lm_modules": cases(lm_module),
    "norm_batchnorm_uncentered": batch_norm,
    "norm_layernorm_groupnorm_gelu": cases(centred_norm),
    "norm_v2_others": cases(v2_norm),
    "lm_bert": encoder,
    "lm_distilbert": encoder,
    "lm_roberta": encoder,
    "lm_gpt2": decoder,
    "lm_llama": decoder,
    r"net_bcosified_clip_\w+": clip_tower,
    "util_perturbation": perturbation,
    "util_gradient_to_image": gradient_image,
    "util_localisation_grid_pointing": localisation,
    "util_seqpg": sequence_pointing,
    **NETWORKS,
}
