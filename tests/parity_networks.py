"""The authors' vision networks against ours: B-cosified ResNet, DenseNet and ViT, and the from-scratch ones of B-cos v2.

Their explained input is the raw [x, 1-x], ours what the network sees: for [z, -z] a gradient becomes theirs by the chain rule, divided by std.
"""

from functools import partial

import pytest
import torch
from transformers import ResNetConfig, ResNetForImageClassification

from bcos_hf import bcosify
from bcos_hf.checkpoints import from_bcosification, names
from bcos_hf.checkpoints.bcos_v2 import model_from_state
from bcos_hf.checkpoints.names import bare, new_name
from bcos_hf.models.modeling_densenet import DenseNetConfig, DenseNetForImageClassification
from bcos_hf.models.modeling_simple_vit import SimpleViTConfig, SimpleViTForImageClassification
from bcos_hf.training import bce_loss


resnet_name, densenet_name = partial(new_name, names.RESNET), partial(new_name, names.DENSENET)


def resnet_config(block: str, layers: list[int], widths: list[int], classes: int) -> dict:
    bottleneck = block == "Bottleneck"
    sizes = [width * (4 if bottleneck else 1) for width in widths]
    kind = "bottleneck" if bottleneck else "basic"
    return dict(embedding_size=widths[0], hidden_sizes=sizes, depths=layers, layer_type=kind, num_labels=classes)


def densenet_config(given: dict) -> dict:
    names = dict(growth_rate="growth_rate", depths="block_config", embedding_size="num_init_features", bottleneck="bn_size", num_labels="num_classes")
    return {ours: given[theirs] for ours, theirs in names.items()}


def vit_config(given: dict, channels: int) -> dict:
    names = dict(patch_size="patch_size", hidden_size="dim", num_hidden_layers="depth", num_attention_heads="heads", intermediate_size="mlp_dim")
    stem = given.get("conv_stem") or []
    strides = [2 if after > before else 1 for before, after in zip([channels, *stem], stem, strict=False)]
    made = {ours: given[theirs] for ours, theirs in names.items()}
    return dict(made, num_labels=given["num_classes"], stem_channels=stem, stem_strides=strides, head_dim=given.get("dim_head"))


def meets_explanations(golden, model, pixel_values: torch.Tensor, divisor: torch.Tensor | float) -> None:
    """Logits, gradients and contributions; `divisor` takes a gradient for what the network sees to one for the raw input."""
    x = golden.get("input/x")
    golden.meets("output/logits", model(pixel_values).logits)
    for index, targets in enumerate(golden.settings["targets"]):
        explanation = model.explain(pixel_values, targets=targets)
        gradient = explanation.weights[:, 0] / divisor
        golden.meets(f"expl/grad_{index}", gradient)
        golden.meets(f"expl/contrib_{index}", (x * gradient).sum(1), gradient=True)
        assert explanation.relative_residual.max() <= 1e-5


def meets_training(golden, model, pixel_values: torch.Tensor, ours) -> None:
    """Loss and gradients of a training step, and the running variances after it."""
    if "train" not in golden.settings:
        return
    model = model.double().train()  # so that what differs is the rounding of theirs alone: gradients of float32 come near the tolerance
    loss = bce_loss(model(pixel_values.double()).logits, torch.tensor(golden.settings["train"]["labels"]))
    golden.meets("train/loss", loss)
    loss.backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    norms = golden.settings["train"]["grad_norms"]
    for name, norm in norms.items():  # some are differences of numbers as large as the largest
        assert grads[ours(name)].norm().item() == pytest.approx(norm, rel=2e-4, abs=5e-5 * max(norms.values())), name
    for key in [key for key in golden.tensors if key.startswith("train/grad/")]:
        golden.meets(key, grads[ours(key.removeprefix("train/grad/"))].view(golden.tensors[key].shape))
    for key in [key for key in golden.tensors if key.startswith("train/running_var/")]:
        golden.meets(key, model.state_dict()[ours(key.removeprefix("train/running_var/"))])


def as_published(golden, state: dict) -> dict:
    """The Lightning checkpoint that the reference's training would save of the network that it converted."""
    made = {}
    for theirs, origin in golden.settings["name_map_bcos_to_standard"].items():
        source = origin.split()[0]
        value = golden.tensors.get(f"converted/{theirs}", state.get(source, torch.tensor(0)))
        made[f"model.{theirs}"] = value[..., None, None] if "reshaped" in origin else value
    return {"state_dict": made, "hyper_parameters": {"model": golden.settings["model_config"]}}


def bcosified(make, name_of):
    """A check of a network that the authors converted; `make(architecture)` is the standard one."""

    def run(golden) -> None:
        settings, standard = golden.settings, make(golden.settings["architecture"]).eval()
        state = golden.other(settings["standard_state_file"]).under("standard/") if "standard_state_file" in settings else golden.under("standard/")
        standard.load_state_dict({name_of(name): value for name, value in state.items()})
        names, config = settings["name_map_bcos_to_standard"], settings["model_config"]
        given = {**config["bcosify_args"], **config["args"], **config}
        bcos = bcosify(
            standard,
            b=config["bcos_args"]["b"],
            max_out=config["bcos_args"]["max_out"],
            keep_biases=any(name.endswith(".bias") for name in names),
            logit_bias=settings.get("logit_bias"),
            max_pool="keep" if "maxpool kept" in settings["steps"] else "average",
            head_before_pooling=given.get("gap", given.get("gap_reorder")),
            inner_activation="keep" if given["act_layer"] else "identity",
            batch_norm={"BnUnc2d": "uncentered_unfolded"}.get(config["bcosify_args"].get("norm_layer"), "uncentered"),
        )
        mean, std = (torch.tensor(settings["normalise"][key]).view(1, 6, 1, 1) for key in ("mean", "std"))
        z = (golden.get("input/x")[:, :3] - mean[:, :3]) / std[:, :3]
        if "standard_output/logits" in golden.tensors:
            golden.meets("standard_output/logits", standard(z).logits)
        converted = bcos.state_dict()
        for theirs, origin in names.items():
            made = converted[name_of(bare(theirs))]
            if origin.startswith("stored under converted"):
                golden.meets(f"converted/{theirs}", made)
            elif not origin.startswith("new buffer"):
                assert torch.equal(made, state[origin.split()[0]]), theirs  # '... (reshaped)': their head is a 1x1 convolution, ours a linear layer
        unsaid = dict(max_pool=bcos.config.max_pool) if hasattr(bcos.config, "depths") else dict(num_attention_heads=bcos.config.num_attention_heads)
        loaded = from_bcosification(as_published(golden, state), logit_bias=settings.get("logit_bias"), **unsaid)
        golden.meets("output/logits", loaded(z).logits)
        meets_explanations(golden, bcos, z, std)
        meets_training(golden, bcos, z, lambda name: name_of(bare(name)))

    return run


def from_scratch(family, config_of):
    """A check of a network of B-cos v2, by what reads its published checkpoints."""

    def run(golden) -> None:
        given = golden.settings["config"]
        norm = "position" if "PositionNorm" in given["norm"] else "uncentered"
        fields = dict(config_of(given), b=given["b"], max_out=given["max_out"], logit_bias=given["logit_bias"], batch_norm=norm)
        model = model_from_state(family, fields, golden.under("state/"), golden.kind)
        meets_explanations(golden, model, golden.get("input/x")[:, :3], 1.0)

    return run


def standard_resnet(given: dict):
    return ResNetForImageClassification(ResNetConfig(**resnet_config(given["block"], given["layers"], given["widths"], given["num_classes"])))


def v2_resnet(given: dict) -> dict:
    widths = [given["inplanes"] * 2**stage for stage in range(len(given["layers"]))]
    return resnet_config(given["block"], given["layers"], widths, given["num_classes"])


# kind (a pattern) -> check
NETWORKS = {
    r"net_bcosified_resnet": bcosified(standard_resnet, resnet_name),
    r"net_bcosified_densenet": bcosified(lambda given: DenseNetForImageClassification(DenseNetConfig(**densenet_config(given))), densenet_name),
    r"net_bcosified_vit": bcosified(lambda given: SimpleViTForImageClassification(SimpleViTConfig(**vit_config(given, 3))), str),
    r"net_v2_resnet_\w+": from_scratch("resnet", v2_resnet),
    r"net_v2_densenet_\w+": from_scratch("densenet", densenet_config),
    r"net_v2_vit_\w+": from_scratch("simple_vit", lambda given: vit_config(given, 6)),
}
