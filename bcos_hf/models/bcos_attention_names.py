"""What the linear layers of attentions are called, over all families, and that none is of an unknown role: taken for the wrong one it would leave
explanations silently incomplete.
"""

import re
from collections.abc import Callable

from torch import nn
from transformers.pytorch_utils import Conv1D

from .bcos_attention import QueryKey, QueryKeyValue, QueryKeyValueConv1D


LINEARS = (nn.Linear, nn.Conv2d, Conv1D)
# names of projections, over all families; everything else that is linear becomes a B-cos layer
QUERY_KEY = dict.fromkeys(("query", "key", "q_lin", "k_lin", "q_proj", "k_proj"), QueryKey) | {
    "to_qkv": QueryKeyValue,
    "c_attn": QueryKeyValueConv1D,
}
LINEAR = dict.fromkeys(("value", "v_lin", "v_proj"), "attention is linear in the values")
LINEAR |= dict.fromkeys(
    ("visual_projection", "text_projection"), "the projection of an embedding stays linear, as in CLIP's attention pool"
)
LINEAR |= dict.fromkeys(
    ("decoder", "vocab_projector", "lm_head"),
    "the language model head stays a plain linear layer, tied to the embeddings",
)

# the other layers that an attention may have: what they read is linear in the values
OUTPUTS = ("dense", "o_proj", "out_proj", "out_lin", "c_proj", "to_out", "fc1", "fc2")
ATTENTION = re.compile("attention|attn", re.IGNORECASE)


def check_attentions(modules: dict[str, nn.Module], converts: Callable[[str], bool], others: set[str]) -> None:
    """Raise a ValueError for a linear layer inside an attention of which it is unknown whether it makes queries, keys, values or the output.

    Args:
        modules: of a model that is not converted yet. converts: whether the module of a name is to be. others: names of layers that are known to be none.
    """
    attentions = [
        name
        for name, module in modules.items()
        if name and (ATTENTION.search(type(module).__name__) or ATTENTION.search(name.rpartition(".")[2]))
    ]
    for name, module in modules.items():
        leaf = name.rpartition(".")[2]
        known = leaf in QUERY_KEY or leaf in LINEAR or leaf in OUTPUTS or name in others
        if type(module) not in LINEARS or known or not converts(name):
            continue
        if any(name.startswith(f"{attention}.") for attention in attentions):
            raise ValueError(
                f"{name}: expected a linear layer of an attention to be called one of {sorted({*QUERY_KEY, *LINEAR, *OUTPUTS})}, by which it is known "
                "whether it makes queries and keys, which are constant in explanations, values, or the output. Give it a twin, or, where it is none of "
                "the first two, name it in Roles(bcos=...)."
            )
