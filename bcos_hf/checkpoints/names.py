"""Published names of tensors -> ours, as tables of (pattern, replacement); the first pattern that matches a whole name renames it."""

import re
from collections.abc import Callable, Iterable, Sequence

from torch import Tensor


Table = Sequence[tuple[str, str | Callable[[re.Match], str]]]


def bare(name: str) -> str:
    """A name of the authors' code without its wrappers; their B-cos layers hold the weight in `.linear`."""
    return re.sub(r"\.linear\.(weight|bias)$", r".\1", re.sub(r"^(model\.)?(0\.)?", "", name))


def new_name(table: Table, name: str) -> str | None:
    """The name that a table gives; None where it has none."""
    return next((re.sub(pattern, to, name) for pattern, to in table if re.fullmatch(pattern, name)), None)


def renamed(state: dict[str, Tensor], table: Table, strip: Callable[[str], str] = bare) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors under our names, and the names that have none, or one that another tensor has already."""
    made, unknown = {}, []
    for name, value in state.items():
        ours = new_name(table, strip(name))
        if ours is None or ours in made:
            unknown.append(name)
        else:
            made[ours] = value
    return made, unknown


def counts(state: Iterable[str], pattern: str) -> list[int]:
    """How many blocks each stage has; the pattern's groups are the numbers of stage and block."""
    found = {(int(match[1]), int(match[2])) for name in state if (match := re.match(pattern, name))}
    return [sum(stage == other for other, _ in found) for stage in sorted({stage for stage, _ in found})]


def _block(found: re.Match) -> str:
    return f"resnet.encoder.stages.{int(found[1]) - 1}.layers.{found[2]}"


SAME: Table = ((r"(.+)", r"\1"),)
# torchvision's ResNet and ResNeXt
RESNET: Table = (
    (r"conv1\.(.+)", r"resnet.embedder.embedder.convolution.\1"),
    (r"bn1\.(.+)", r"resnet.embedder.embedder.normalization.\1"),
    (r"fc\.(.+)", r"classifier.1.\1"),
    (r"layer(\d+)\.(\d+)\.downsample\.0\.(.+)", lambda found: f"{_block(found)}.shortcut.convolution.{found[3]}"),
    (r"layer(\d+)\.(\d+)\.downsample\.1\.(.+)", lambda found: f"{_block(found)}.shortcut.normalization.{found[3]}"),
    (r"layer(\d+)\.(\d+)\.conv(\d)\.(.+)", lambda found: f"{_block(found)}.layer.{int(found[3]) - 1}.convolution.{found[4]}"),
    (r"layer(\d+)\.(\d+)\.bn(\d)\.(.+)", lambda found: f"{_block(found)}.layer.{int(found[3]) - 1}.normalization.{found[4]}"),
)
_STEM, _TRANSITION = ("conv0", "norm0", "relu0", "pool0"), ("norm", "relu", "conv", "pool")
# DenseNet: torchvision's names, or those of containers that number their parts (features.4 is the first block)
DENSENET: Table = (
    (r"features\.([0-3])\.(.+)", lambda found: f"features.{_STEM[int(found[1])]}.{found[2]}"),
    (r"features\.(\d+)\.(denselayer.+)", lambda found: f"features.denseblock{int(found[1]) // 2 - 1}.{found[2]}"),
    (r"features\.(\d+)\.([0-3])\.(.+)", lambda found: f"features.transition{(int(found[1]) - 3) // 2}.{_TRANSITION[int(found[2])]}.{found[3]}"),
    (r"features\.\d+\.(.+)", r"features.norm5.\1"),
    *SAME,
)
# the image tower of CLIP RN50, B-cosified: OpenAI's names, but that conversion numbered the children of `downsample` anew
CLIP_RESNET: Table = ((r"(.+)downsample\.(\d)(.+)", lambda found: f"{found[1]}downsample.{int(found[2]) - 1}{found[3]}"), *SAME)
_CONVNEXT_BLOCK = ("dwconv", "layernorm", "pwconv1", "pwconv2")
# ConvNeXt of B-cos v2: as torchvision numbers it (features.2, .4, .6, .8 are the stages), but for the stem
CONVNEXT: Table = (
    (r"features\.0\.(.+)", r"convnext.embeddings.patch_embeddings.\1"),
    (r"features\.1\.(.+)", r"convnext.embeddings.layernorm.\1"),
    (r"features\.([357])\.([01])\.(.+)", lambda found: f"convnext.encoder.stages.{int(found[1]) // 2}.downsampling_layer.{found[2]}.{found[3]}"),
    (r"features\.([2468])\.(\d+)\.layer_scale", lambda found: f"convnext.encoder.stages.{int(found[1]) // 2 - 1}.layers.{found[2]}.layer_scale_parameter"),
    (
        r"features\.([2468])\.(\d+)\.block\.([0-3])\.(.+)",
        lambda found: f"convnext.encoder.stages.{int(found[1]) // 2 - 1}.layers.{found[2]}.{_CONVNEXT_BLOCK[int(found[3])]}.{found[4]}",
    ),
    (r"classifier\.0\.(.+)", r"convnext.layernorm.\1"),
    (r"classifier\.1\.(.+)", r"classifier.\1"),
)


def vgg(depths: Sequence[int]) -> Table:
    """B-cos v2's VGG with batch norms: no activation and no dropout has a number there, as in ours, which are torchvision's."""
    theirs, ours, table = 0, 0, []
    for depth in depths:
        for _ in range(depth):
            table += [(rf"features\.{theirs + part}\.(.+)", rf"features.{ours + part}.\1") for part in (0, 1)]
            theirs, ours = theirs + 2, ours + 3
        theirs, ours = theirs + 1, ours + 1
    return (*table, (r"classifier\.([0-2])\.(.+)", lambda found: f"classifier.{3 * int(found[1])}.{found[2]}"))
