"""OpenAI's state dicts, with random weights: the published names, in a dict, a file and a TorchScript archive."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.image_utils import OPENAI_CLIP_MEAN

from bcos_hf import bcosify
from bcos_hf.checkpoints import from_openai_clip
from bcos_hf.data import image_processor
from bcos_hf.models.modeling_clip_resnet_vision import CLIP_RESNETS, CLIPResNetVisionConfig, CLIPResNetVisionModel


WIDTH, LAYERS, VOCABULARY, CONTEXT = 128, 2, 50, 9


def text_names(width, layers, vocabulary, context, projection) -> dict[str, tuple]:
    """Names and shapes of the text tower, as OpenAI's model.py builds it."""
    made = {"positional_embedding": (context, width), "text_projection": (width, projection), "logit_scale": (), "token_embedding.weight": (vocabulary, width)}
    made |= {"ln_final.weight": (width,), "ln_final.bias": (width,)}
    for i in range(layers):
        block = {
            "attn.in_proj_weight": (3 * width, width),
            "attn.in_proj_bias": (3 * width,),
            "attn.out_proj.weight": (width, width),
            "attn.out_proj.bias": (width,),
        }
        block |= {f"ln_{j}.{key}": (width,) for j in (1, 2) for key in ("weight", "bias")}
        block |= {"mlp.c_fc.weight": (4 * width, width), "mlp.c_fc.bias": (4 * width,), "mlp.c_proj.weight": (width, 4 * width), "mlp.c_proj.bias": (width,)}
        made |= {f"transformer.resblocks.{i}.{name}": shape for name, shape in block.items()}
    return made


def openai_state(**vision) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    config = CLIPResNetVisionConfig(**{"width": 8, "depths": [1, 2, 1, 1], "image_size": 64, "projection_dim": 20, **vision})
    tower = CLIPResNetVisionModel(config).state_dict()
    state = {f"visual.{name}": value.half() if value.is_floating_point() else value for name, value in tower.items()}
    texts = text_names(WIDTH, LAYERS, VOCABULARY, CONTEXT, config.projection_dim)
    return state | {name: (0.1 * torch.randn(shape)).half() for name, shape in texts.items()}


def slow_text_features(state, ids):
    """The text tower by torch's own modules, as the paper describes it: pre-norm transformer, causal mask, QuickGELU, features at the last token."""
    state = {name: value.float() for name, value in state.items()}
    x = state["token_embedding.weight"][ids] + state["positional_embedding"][: ids.shape[1]]
    mask = torch.full((ids.shape[1],) * 2, float("-inf")).triu(1)
    for i in range(LAYERS):
        own = {name.removeprefix(f"transformer.resblocks.{i}."): value for name, value in state.items() if name.startswith(f"transformer.resblocks.{i}.")}
        attention = nn.MultiheadAttention(WIDTH, WIDTH // 64, batch_first=True)
        attention.load_state_dict({name.removeprefix("attn."): value for name, value in own.items() if name.startswith("attn.")})
        y = F.layer_norm(x, (WIDTH,), own["ln_1.weight"], own["ln_1.bias"])
        x = x + attention(y, y, y, attn_mask=mask, need_weights=False)[0]
        y = F.layer_norm(x, (WIDTH,), own["ln_2.weight"], own["ln_2.bias"]) @ own["mlp.c_fc.weight"].T + own["mlp.c_fc.bias"]
        x = x + (y * torch.sigmoid(1.702 * y)) @ own["mlp.c_proj.weight"].T + own["mlp.c_proj.bias"]
    x = F.layer_norm(x, (WIDTH,), state["ln_final.weight"], state["ln_final.bias"])
    return x[torch.arange(len(ids)), ids.argmax(1)] @ state["text_projection"]


def test_a_state_dict_becomes_a_model_and_a_b_cos_model():
    state = openai_state()
    numbers = {name: torch.tensor(value) for name, value in (("input_resolution", 64), ("context_length", CONTEXT), ("vocab_size", VOCABULARY))}
    model = from_openai_clip({**state, **numbers})
    ids = torch.randint(1, 40, (3, 6))
    ids[:, -1] = VOCABULARY - 1
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model.get_text_features(ids).pooler_output, slow_text_features(state, ids), rtol=1e-4, atol=1e-5)
    for name, value in model.vision_model.state_dict().items():
        assert torch.equal(value, state[f"visual.{name}"].to(value.dtype)), name
    made = bcosify(model).explain(x, ids, targets=[[0, 1, 2]] * 2)
    torch.testing.assert_close(made.contributions.flatten(2).sum(-1) + made.constant, made.logits, rtol=0, atol=1e-5)


def test_files_and_archives(tmp_path):
    state, x = openai_state(), torch.randn(2, 3, 64, 64)
    expected = from_openai_clip(state).get_image_features(x).pooler_output
    torch.save({"state_dict": state}, tmp_path / "state.pt")

    class Holder(nn.Module):  # an archive with these names, as theirs
        def forward(self, x):
            return x

    holder = Holder()
    for name, value in state.items():
        owner, (*path, leaf) = holder, name.split(".")
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner._modules[part]
        owner.register_buffer(leaf, value)
    torch.jit.save(torch.jit.trace(holder, x), tmp_path / "archive.pt")
    processor = image_processor(tmp_path / "state.pt", from_openai_clip(state).config.vision_config)
    assert list(processor.image_mean) == OPENAI_CLIP_MEAN and processor.crop_size.height == 64
    for file in ("state.pt", "archive.pt"):
        assert torch.equal(from_openai_clip(tmp_path / file).get_image_features(x).pooler_output, expected)


def test_wrong_state_dicts_are_refused_by_name():
    state = openai_state()
    with pytest.raises(ValueError, match=r"missing: \['vision_model.layer2.1.conv2.weight'\]; unexpected: \['extra.weight'\]"):
        from_openai_clip({**{name: value for name, value in state.items() if name != "visual.layer2.1.conv2.weight"}, "extra.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"missing: .*visual\.layer1\.0\.conv1\.weight"):
        from_openai_clip({"conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"visual_projection|c_proj.weight: got shape \[20, 3\], expected \[20, 256\]"):
        from_openai_clip({**state, "visual.attnpool.c_proj.weight": torch.zeros(20, 3)})
    with pytest.raises(ValueError, match="got a ViT"):
        from_openai_clip({**state, "visual.class_embedding": torch.zeros(3)})


@pytest.mark.parametrize("name, parameters", [("RN50", 38316896), ("RN101", 56259936)])
def test_towers_have_the_published_sizes(name, parameters):
    """38.32 and 56.26 million parameters in the image towers, as OpenCLIP's model_profile.csv lists them."""
    with torch.device("meta"):
        tower = CLIPResNetVisionModel(CLIPResNetVisionConfig(**CLIP_RESNETS[name]))
    assert sum(parameter.numel() for parameter in tower.parameters()) == parameters


class Malicious:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("damage", ["malicious", "truncated", "text", "empty", "list", "nested list"])
def test_a_file_that_is_no_checkpoint_is_refused_and_nothing_in_it_is_run(tmp_path, damage):
    file, trace = tmp_path / "model.pt", tmp_path / "trace"
    torch.save({"malicious": {"visual.conv1.weight": Malicious(trace)}, "list": [1, 2], "nested list": {"state_dict": [1]}}.get(damage, openai_state()), file)
    if damage in ("truncated", "text", "empty"):
        file.write_bytes({"truncated": file.read_bytes()[:-3000], "text": b"not a checkpoint", "empty": b""}[damage])
    with pytest.raises(ValueError, match="Expected"):
        from_openai_clip(file)
    assert not trace.exists()
