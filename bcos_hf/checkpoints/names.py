"""Names of the tensors in the authors' checkpoints -> ours."""

import re


def bare(name: str) -> str:
    """A reference's name without its wrappers; its B-cos layers hold their weight in `.linear`."""
    return re.sub(r"\.linear\.(weight|bias)$", r".\1", re.sub(r"^(model|0)\.", "", name))


def resnet_name(name: str) -> str:
    """A torchvision ResNet's name in transformers'."""
    for old, new in (("conv1.", "resnet.embedder.embedder.convolution."), ("bn1.", "resnet.embedder.embedder.normalization."), ("fc.", "classifier.1.")):
        if name.startswith(old):
            return name.replace(old, new, 1)
    number, block, kind, index, rest = re.match(r"layer(\d+)\.(\d+)\.(conv|bn|downsample\.)(\d+)\.(.*)", name).groups()
    block = f"resnet.encoder.stages.{int(number) - 1}.layers.{block}"
    if kind == "downsample.":
        return f"{block}.shortcut.{('convolution', 'normalization')[int(index)]}.{rest}"
    return f"{block}.layer.{int(index) - 1}.{'convolution' if kind == 'conv' else 'normalization'}.{rest}"


def densenet_name(name: str) -> str:
    """A name of the reference's renumbered containers (features.5.0 ...) in torchvision's DenseNet."""
    numbered = re.match(r"features\.(\d+)\.(.*)", name)
    if not numbered:
        return name
    number, rest = int(numbered[1]), numbered[2]
    if number < 4:
        return f"features.{('conv0', 'norm0', 'relu0', 'pool0')[number]}.{rest}"
    if rest.startswith("denselayer"):
        return f"features.denseblock{(number - 4) // 2 + 1}.{rest}"
    if not rest[0].isdigit():
        return f"features.norm5.{rest}"
    part, rest = rest.split(".", 1)
    return f"features.transition{(number - 4) // 2 + 1}.{('norm', 'relu', 'conv', 'pool')[int(part)]}.{rest}"


def clip_resnet_name(theirs: str) -> str:
    """A reference's name in OpenAI's, and ours: conversion numbered the children of `downsample` anew."""
    return re.sub(r"downsample\.(\d)", lambda found: f"downsample.{int(found[1]) - 1}", bare(theirs))
