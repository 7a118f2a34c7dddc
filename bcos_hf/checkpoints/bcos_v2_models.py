"""The published checkpoints of B-cos v2 (Boehle et al., TPAMI 2024, arXiv 2306.10898), as a table.

Names, files, accuracies on ImageNet-1k and numbers of parameters are those of github.com/B-cos/B-cos-v2, README.md, "Model Zoo"; architectures are those of
bcos/models/*.py, settings those of bcos/experiments/ImageNet/{bcos_final,bcos_final_long,vit_final} there.
"""

from typing import NamedTuple


RELEASE = "https://github.com/B-cos/B-cos-v2/releases/download/v0.0.1-weights/"


class Published(NamedTuple):
    """A checkpoint.

    Attributes:
        family: which of `bcos_v2.FAMILIES`. fields: of its configuration. file: below `RELEASE`; its name ends with the start of its SHA-256.
        top1: accuracy in %. parameters: in millions. resize: the shorter side of a picture, of which the middle 224 x 224 pixels are seen.
    """

    family: str
    fields: dict
    file: str
    top1: float
    parameters: float
    resize: int = 256


def _resnet(*depths: int, basic: bool = False) -> dict:
    widths = [64, 128, 256, 512] if basic else [256, 512, 1024, 2048]
    return dict(depths=list(depths), hidden_sizes=widths, layer_type="basic" if basic else "bottleneck")


def _densenet(*depths: int, growth_rate: int = 32, embedding_size: int = 64) -> dict:
    return dict(depths=list(depths), growth_rate=growth_rate, embedding_size=embedding_size)


def _convnext(width: int, depth: int, norm: str) -> dict:
    return dict(hidden_sizes=[width * 2**stage for stage in range(4)], depths=[3, 3, depth, 3], norm_layer=norm)


def _vit(width: int, heads: int, layers: int, stem: tuple[int, ...] = ()) -> dict:
    sizes = dict(hidden_size=width, num_attention_heads=heads, num_hidden_layers=layers, intermediate_size=4 * width)
    return dict(sizes, patch_size=1 if stem else 16, stem_channels=list(stem))


_WIDE_STEM = (64, 128, 128, 256, 256, 512)
# the sizes of both kinds of ViT, B-cos and standard
_SIMPLE_VITS = {"ti": _vit(192, 3, 12), "s": _vit(384, 6, 12), "b": _vit(768, 12, 12), "l": _vit(1024, 16, 14)}
_VITCS = {
    "ti": _vit(192, 3, 11, (24, 48, 96, 192)),
    "s": _vit(384, 6, 11, (48, 96, 192, 384)),
    "b": _vit(768, 12, 11, _WIDE_STEM),
    "l": _vit(1024, 16, 13, _WIDE_STEM),
}

MODELS = {
    "resnet18": Published("resnet", _resnet(2, 2, 2, 2, basic=True), "resnet_18-68b4160fff.pth", 68.736, 11.69),
    "resnet34": Published("resnet", _resnet(3, 4, 6, 3, basic=True), "resnet_34-a63425a03e.pth", 72.284, 21.80),
    "resnet50": Published("resnet", _resnet(3, 4, 6, 3), "resnet_50-ead259efe4.pth", 75.882, 25.52),
    "resnet101": Published("resnet", _resnet(3, 4, 23, 3), "resnet_101-84c3658278.pth", 76.532, 44.50),
    "resnet152": Published("resnet", _resnet(3, 8, 36, 3), "resnet_152-42051a77c1.pth", 76.484, 60.13),
    "resnext50_32x4d": Published("resnext", _resnet(3, 4, 6, 3), "resnext_50_32x4d-57af241ab9.pth", 75.820, 25.00),
    "densenet121": Published("densenet", _densenet(6, 12, 24, 16), "densenet_121-b8daf96afb.pth", 73.612, 7.95),
    "densenet161": Published("densenet", _densenet(6, 12, 36, 24, growth_rate=48, embedding_size=96), "densenet_161-9e9ea51353.pth", 76.622, 28.58),
    "densenet169": Published("densenet", _densenet(6, 12, 32, 32), "densenet_169-7037ee0604.pth", 75.186, 14.08),
    "densenet201": Published("densenet", _densenet(6, 12, 48, 32), "densenet_201-00ac87066f.pth", 75.480, 19.91),
    "vgg11_bnu": Published("vgg", dict(depths=[1, 1, 2, 2, 2]), "vgg_11_bnu-34036029f0.pth", 69.310, 132.86),
    "convnext_tiny": Published("convnext", _convnext(96, 9, "layer_norm"), "convnext_tiny_pn-539b1bfb37.pth", 77.488, 28.54, 232),
    "convnext_base": Published("convnext", _convnext(128, 27, "layer_norm"), "convnext_base_pn-b0495852c6.pth", 79.650, 88.47, 232),
    "convnext_tiny_bnu": Published("convnext", _convnext(96, 9, "batch_norm"), "convnext_tiny_bnu-dbd7f5ef9d.pth", 76.826, 28.54, 232),
    "convnext_base_bnu": Published("convnext", _convnext(128, 27, "batch_norm"), "convnext_base_bnu-7c32a704b3.pth", 80.142, 88.47, 232),
    "densenet121_long": Published("densenet", _densenet(6, 12, 24, 16), "densenet_121_long-5175461597.pth", 77.302, 7.95, 232),
    "resnet50_long": Published("resnet", _resnet(3, 4, 6, 3), "resnet_50_long-ef38a88533.pth", 79.468, 25.52, 232),
    "resnet152_long": Published("resnet", _resnet(3, 8, 36, 3), "resnet_152_long-0b4b434939.pth", 80.144, 60.13, 232),
    "simple_vit_ti_patch16_224": Published("simple_vit", _SIMPLE_VITS["ti"], "bcos_simple_vit_ti_patch16_224-4b0824b1c1.pth", 59.960, 5.80),
    "simple_vit_s_patch16_224": Published("simple_vit", _SIMPLE_VITS["s"], "bcos_simple_vit_s_patch16_224-75e99d1f73.pth", 69.246, 22.28),
    "simple_vit_b_patch16_224": Published("simple_vit", _SIMPLE_VITS["b"], "bcos_simple_vit_b_patch16_224-1fc4750806.pth", 74.408, 86.90),
    "simple_vit_l_patch16_224": Published("simple_vit", _SIMPLE_VITS["l"], "bcos_simple_vit_l_patch16_224-9613b2ad0a.pth", 75.060, 178.79),
    "vitc_ti_patch1_14": Published("simple_vit", _VITCS["ti"], "bcos_vitc_ti_patch1_14-ddd6193a77.pth", 67.260, 5.32),
    "vitc_s_patch1_14": Published("simple_vit", _VITCS["s"], "bcos_vitc_s_patch1_14-cf55c88f0c.pth", 74.504, 20.88),
    "vitc_b_patch1_14": Published("simple_vit", _VITCS["b"], "bcos_vitc_b_patch1_14-a13c46397b.pth", 77.152, 81.37),
    "vitc_l_patch1_14": Published("simple_vit", _VITCS["l"], "bcos_vitc_l_patch1_14-8739e18b8d.pth", 77.782, 167.44),
    "standard_simple_vit_ti_patch16_224": Published("standard_vit", _SIMPLE_VITS["ti"], "standard_simple_vit_ti_patch16_224-2ae8c65a39.pth", 70.230, 5.67),
    "standard_simple_vit_s_patch16_224": Published("standard_vit", _SIMPLE_VITS["s"], "standard_simple_vit_s_patch16_224-f2934fcdcf.pth", 74.470, 21.96),
    "standard_simple_vit_b_patch16_224": Published("standard_vit", _SIMPLE_VITS["b"], "standard_simple_vit_b_patch16_224-87074200ed.pth", 75.300, 86.38),
    "standard_simple_vit_l_patch16_224": Published("standard_vit", _SIMPLE_VITS["l"], "standard_simple_vit_l_patch16_224-62dc536e03.pth", 75.710, 178.10),
    "standard_vitc_ti_patch1_14": Published("standard_vit", _VITCS["ti"], "standard_vitc_ti_patch1_14-a5d6bded37.pth", 72.590, 5.33),
    "standard_vitc_s_patch1_14": Published("standard_vit", _VITCS["s"], "standard_vitc_s_patch1_14-34ecd7288e.pth", 75.756, 20.91),
    "standard_vitc_b_patch1_14": Published("standard_vit", _VITCS["b"], "standard_vitc_b_patch1_14-4d374b0220.pth", 76.790, 81.39),
    "standard_vitc_l_patch1_14": Published("standard_vit", _VITCS["l"], "standard_vitc_l_patch1_14-560e48f246.pth", 77.866, 167.54),
}
