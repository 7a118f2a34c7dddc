"""Prompts for zero-shot classification: OpenAI's published sets (Radford et al., ICML 2021, arXiv 2103.00020, openai/CLIP: data/prompts.md)."""

_CIFAR = (
    "a photo of {} {}.", "a blurry photo of {} {}.", "a black and white photo of {} {}.", "a low contrast photo of {} {}.", "a high contrast photo of {} {}.",
    "a bad photo of {} {}.", "a good photo of {} {}.", "a photo of {} small {}.", "a photo of {} big {}.",
)  # fmt: skip
TEMPLATES = {
    "one": ("a photo of a {}.",),
    # the seven that the authors found to be enough for ImageNet
    "imagenet7": (
        "itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.", "a {} in a video game.", "art of the {}.",
        "a photo of the small {}.",
    ),
    "cifar10": tuple(template.format(article, "{}") for article in ("a", "the") for template in _CIFAR),
}  # fmt: skip


def prompts_of(names: list[str], templates: str | tuple[str, ...] = "one") -> list[list[str]]:
    """For each class name the prompts that speak of it; `templates` is a set's name, or texts with {} for the name.

    Raises:
        ValueError: no such set, or a template without {}.
    """
    if isinstance(templates, str):
        if templates not in TEMPLATES:
            raise ValueError(f"templates: expected one of {sorted(TEMPLATES)} or texts with {{}}, got {templates!r}.")
        templates = TEMPLATES[templates]
    if wrong := [template for template in templates if "{}" not in template]:
        raise ValueError(f"templates: expected texts with {{}} for the class name, got {wrong[0]!r}.")
    return [[template.format(name.replace("_", " ")) for template in templates] for name in names]
