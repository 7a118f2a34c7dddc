"""Whether the explanations of a model are exact, tried on a random input of its own kind before anybody else relies on them."""

from bcos_hf.models.bcos_linearity import random_input
from bcos_hf.models.bcos_verifying import Verification, verify


def exactness(model) -> Verification | None:
    """What `bcos_hf.verify` finds on a random input; None of a model without logits, which explains nothing."""
    if not hasattr(model, "explain"):
        return None
    try:
        return verify(model, **random_input(model))
    except TypeError:
        return None


def exactness_sentence(model) -> str:
    """For a card; '' of a model that explains nothing."""
    found = exactness(model)
    if found is None:
        return ""
    if found.exact:
        return f"Each of its {len(found.errors)} modules was verified to be dynamic linear, up to a relative error of {found.worst:.0e}."
    return f"**Its explanations are not exact**: {', '.join(found.blamed[:5])} of it are not dynamic linear (`bcos_hf.verify`)."
