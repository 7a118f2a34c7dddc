"""The authors' B-cosified CLIP image tower against ours: pooled, and read at single positions (unpool).

Their explained input is the raw [x, 1-x], ours [z, -z]: a gradient becomes theirs by the chain rule, divided by std. In their scalars the length of the
embedding keeps its gradient, which explain() holds constant; so the gradients are taken in explanation mode, and explain() is held to its own law.
"""

import re

import torch
from parity_networks import as_published

from bcos_hf import bcosify
from bcos_hf.checkpoints import from_bcosification
from bcos_hf.checkpoints.names import CLIP_RESNET, bare, new_name
from bcos_hf.models.modeling_bcos import leaf_at
from bcos_hf.models.modeling_bcos_image_text import cosine_power_score, unit
from bcos_hf.models.modeling_clip_resnet_vision import CLIPResNetVisionConfig, CLIPResNetVisionModel


def name_of(theirs: str) -> str:
    """A reference's name in OpenAI's, and ours."""
    return new_name(CLIP_RESNET, bare(theirs))


def standard_tower(given: dict) -> CLIPResNetVisionModel:
    sizes = dict(depths=given["layers"], width=given["width"], num_attention_heads=given["heads"], image_size=given["input"])
    return CLIPResNetVisionModel(CLIPResNetVisionConfig(**sizes, projection_dim=given["output_dim"])).eval()


def scalar_of(name: str, text: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """The number [N] that a reference explains, of features [N, D] or [N, positions, D]."""
    kind, index, power = re.fullmatch(r"(dim|text)(\d+)(?:_p(\d+))?", name).groups()
    if kind == "dim":
        return features[:, int(index)]
    cosines = unit(features, constant=False) @ text[:, [int(index)]]
    return (cosines if power is None else cosine_power_score(cosines, int(power)))[:, 0]


def clip_tower(golden) -> None:
    settings = golden.settings
    standard = standard_tower(settings["architecture"])
    shared = "standard_state_file" in settings
    state = (golden.other(settings["standard_state_file"]) if shared else golden).under("standard/")
    standard.load_state_dict(state)
    config = settings["model_config"]
    model = bcosify(standard, b=config["bcos_args"]["b"], max_out=config["bcos_args"]["max_out"], keep_biases=config["bcosify_args"]["use_bias"])
    mean, std = (torch.tensor(settings["normalise"][key]).view(1, 6, 1, 1) for key in ("mean", "std"))
    model = model.double()  # so that what differs is the rounding of theirs alone, which comes near the tolerance (`noise_floor`)
    x, text, unpool = golden.get("input/x").double(), golden.get("text").double(), config["attn_unpool"] or golden.tensors["output/features"].dim() == 3
    z = (x[:, :3] - mean[:, :3]) / std[:, :3]
    if "standard_output/features" in golden.tensors:
        golden.meets("standard_output/features", standard(z.float()).pooler_output)
    converted = {name: value.float() for name, value in model.state_dict().items()}
    for theirs, origin in settings["name_map_bcos_to_standard"].items():
        if origin.startswith("stored under converted"):
            golden.meets(f"converted/{theirs}", converted[name_of(theirs)])
        elif not origin.startswith("new buffer"):
            assert torch.equal(converted[name_of(theirs)], state[origin.split()[0]]), theirs
    if not config["attn_unpool"]:
        loaded = from_bcosification(as_published(golden, state), num_attention_heads=settings["architecture"]["heads"]).double()
        golden.meets("output/features", loaded.position_embeds(z).transpose(0, 1) if unpool else loaded.image_embeds(z))
    features = model.position_embeds if unpool else model.image_embeds
    golden.meets("output/features", features(z).transpose(0, 1) if unpool else features(z))
    floors = [floor for key, floor in settings["noise_floor"].items() if key.endswith("/grad")]  # contributions have none of their own: the gradients'
    noise = max((floor["max_abs_diff_f32_vs_f64"] / floor["max_abs"] for floor in floors), default=0.0)
    for key in [key for key in golden.tensors if key.startswith("expl/") and key.endswith("/value")]:
        name = key.split("/")[1]
        with model.explanation_mode(), leaf_at(model._input_encoding()) as leaf:
            value = scalar_of(name, text, features(z))
            gradient = torch.autograd.grad(value.sum(), leaf[0])[0] / std
        golden.meets(key, value)
        if f"expl/{name}/grad" in golden.tensors:
            golden.meets(f"expl/{name}/grad", gradient)
        golden.meets(f"expl/{name}/contrib", (x * gradient).sum(1), gradient=True, relative_noise=noise)
    made = model.explain(z, text.T, targets=[[*range(text.shape[1])]] * len(z), unpool=unpool, cosine_power=7.0 if unpool else 1.0)
    assert made.relative_residual.max() <= 1e-5
