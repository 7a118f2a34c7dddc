"""Whether the explanations of a model are exact, tried on a random input of its own kind before anybody else relies on them."""

import torch

from bcos_hf.models.bcos_verifying import Verification, verify


def exactness(model) -> Verification | None:
    """What `bcos_hf.verify` finds on a random input; None of a model without logits, which explains nothing."""
    if not hasattr(model, "explain"):
        return None
    try:
        return verify(model, **_random_input(model))
    except TypeError:
        return None


def _random_input(model) -> dict:
    generator, config = torch.Generator().manual_seed(0), model.config
    if hasattr(model, "image_embeds") or model.main_input_name == "pixel_values":
        size = getattr(getattr(config, "vision_config", config), "image_size", None) or 64
        height, width = (size, size) if isinstance(size, int) else size
        inputs = {"pixel_values": torch.rand(1, config.num_channels, height, width, generator=generator)}
        prompts = {"text_embeds": torch.randn(2, model._embed_dim, generator=generator)} if hasattr(model, "image_embeds") else {}
        return inputs | prompts
    ids = torch.randint(config.vocab_size, (1, 8), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "position": 7}


def exactness_sentence(model) -> str:
    """For a card; '' of a model that explains nothing."""
    found = exactness(model)
    if found is None:
        return ""
    if found.exact:
        return f"Each of its {len(found.errors)} modules was verified to be dynamic linear, up to a relative error of {found.worst:.0e}."
    return f"**Its explanations are not exact**: {', '.join(found.blamed[:5])} of it are not dynamic linear (`bcos_hf.verify`)."
