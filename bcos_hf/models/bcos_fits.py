"""What stands around a layer, as data: what it is fitted to when a model is refitted at conversion
(`bcos_hf.calibration`).

A layer that has lost its bias, and whose output is scaled by a cosine, is fitted to what the standard layer makes of
the same input. For that it must be known which norm in front of it has lost a bias too, and what its output goes
through before it matters. Names are patterns of module names; in the other fields \\1 is the group of `layer`, as in
`re`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fit:
    """One kind of layer of a family.

    Attributes:
        layer: pattern of the full names of the layers.
        reads: the norm in front of it, and the activation between, in order; without their bias in the twin, with it in
            the target.
        then: what its output goes through, in order, up to the first activation or norm over channels, at which the fit
            is measured; a sum (residual, shortcut) may come before that one. What does nothing is passed over.
        function: name in ACT2FN of an activation that the standard model calls as a function after the layer.
        times: in a gated MLP, what the output is multiplied with: the other projection, or the activation module whose
            output it is.
        stream: module whose input is the residual stream that the layer writes to; an error counts in proportion to it.
        adds: norm whose output is added to the layer's (the first residual of a network); without its bias in the twin, so that the
            layer writes it.
        bias_to: position embeddings that take up the bias of a patch layer, exactly.
        last: of all layers of the pattern only the last is meant, and only where nothing that is fitted reads the norm
            in `then`.
        left: why the weights stay as they are.
    """

    layer: str
    reads: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    function: str | None = None
    times: str | None = None
    stream: str | None = None
    adds: str | None = None
    bias_to: str | None = None
    last: bool = False
    left: str | None = None


KEYS = "a constant added to all keys changes no softmax"
TIED = "tied to the embeddings"


def attention_fits(
    block: str, norm: str | None, query: str, key: str, value: str, output: str, stream: str | None = None
) -> tuple[Fit, ...]:
    """Of a block's attention; names are patterns seen from the block, `norm` is None where it comes after."""
    reads = () if norm is None else (rf"\1{norm}",)
    return (
        Fit(rf"({block}){query}", reads),
        Fit(rf"({block}){key}", left=KEYS),
        Fit(rf"({block}){value}", reads),
        Fit(rf"({block}){output}", stream=stream and rf"\1{stream}"),
    )


def mlp_fits(block: str, norm: str, first: str, activation: str, second: str) -> tuple[Fit, ...]:
    """Of a block's MLP behind its norm."""
    return (
        Fit(rf"({block}){first}", (rf"\1{norm}",), (rf"\1{activation}",)),
        Fit(rf"({block}){second}", stream=rf"\1{norm}"),
    )


def gated_mlp_fits(block: str, norm: str, mlp: str = "mlp") -> tuple[Fit, ...]:
    """Of a block's gated MLP, act(gate(x)) * up(x), behind its norm."""
    reads = (rf"\1{norm}",)
    return (
        Fit(rf"({block}){mlp}\.gate_proj", reads, (rf"\1{mlp}.act_fn",), times=rf"\1{mlp}.up_proj"),
        Fit(rf"({block}){mlp}\.up_proj", reads, times=rf"\1{mlp}.act_fn"),
        Fit(rf"({block}){mlp}\.down_proj", stream=rf"\1{norm}"),
    )


def convolution_fits() -> tuple[Fit, ...]:
    """Of transformers' ResNet and what is built like it; after the last convolution of a block the shortcut is added
    before the activation."""
    return (
        Fit(r"(.*shortcut\.)convolution", then=(r"\1normalization",)),
        Fit(r"(.*embedder\.)convolution", then=(r"\1normalization", r"\1activation")),
        Fit(r"(.*\.)(layer\.\d+\.)convolution", then=(r"\1\2normalization", r"\1\2activation", r"\1activation")),
    )


def bert_fits() -> tuple[Fit, ...]:
    """Of BERT and RoBERTa, whose norms come after the sums: each writer writes the bias of the norm behind it, too."""
    block = r".*layer\.\d+\."
    return (
        Fit(r"(.*)encoder\.layer\.0\.attention\.self\.(?:query|value)", (r"\1embeddings.LayerNorm",)),
        Fit(
            r"(.*)(encoder\.layer\.0\.attention\.output\.)dense",
            then=(r"\1\2LayerNorm",),
            adds=r"\1embeddings.LayerNorm",
        ),
        Fit(rf"({block})attention\.self\.(?:query|value)"),
        Fit(rf"({block})attention\.self\.key", left=KEYS),
        Fit(rf"({block}attention\.output\.)dense", then=(r"\1LayerNorm",)),
        Fit(rf"({block}intermediate\.)dense", then=(r"\1intermediate_act_fn",)),
        Fit(rf"({block}output\.)dense", then=(r"\1LayerNorm",)),
        Fit(r"(.*pooler\.)dense", then=(r"\1activation",)),
        Fit(r"(cls\.predictions\.transform\.)dense", then=(r"\1transform_act_fn",)),
        Fit(r"cls\.predictions\.decoder|lm_head\.decoder", left=TIED),
        Fit("classifier"),
    )


def clip_fits() -> tuple[Fit, ...]:
    """Of the towers of CLIP and SigLIP."""
    block = r".*layers\.\d+\."
    names = (r"self_attn\.q_proj", r"self_attn\.k_proj", r"self_attn\.v_proj", r"self_attn\.out_proj")
    return (
        Fit(r"(.*embeddings\.)patch_embedding", bias_to=r"\1position_embedding"),
        *attention_fits(block, "layer_norm1", *names),
        *mlp_fits(block, "layer_norm2", r"mlp\.fc1", "mlp.activation_fn", r"mlp\.fc2"),
        Fit("classifier"),
    )


def clip_first_fits() -> tuple[Fit, ...]:
    """Of the first layer of CLIP's image tower, in front of which the stream has a norm."""
    first = r"((?:vision_model\.)?)(encoder\.layers\.0\.)"
    return (
        Fit(rf"{first}self_attn\.[qv]_proj", (r"\1pre_layrnorm", r"\1\2layer_norm1")),
        Fit(rf"{first}self_attn\.out_proj", stream=r"\1\2layer_norm1", adds=r"\1pre_layrnorm"),
    )
