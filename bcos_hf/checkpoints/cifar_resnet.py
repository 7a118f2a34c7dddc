"""The CIFAR-10 ResNets of github.com/akamaster/pytorch_resnet_cifar10 (BSD-2-Clause), the option A networks of He et al., CVPR 2016, section 4.2.

They are plain: made to be B-cosified, or compared with. Sizes are read off the shapes. The pictures are normalised as those of ImageNet.
"""

import os
import re

from torch import Tensor
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from bcos_hf.data.cifar10 import LABELS
from bcos_hf.data.splits import label_fields
from bcos_hf.models.modeling_cifar_resnet import CifarResNetConfig, CifarResNetForImageClassification

from . import names
from .reading import model_of, state_of


WANTED = "a CIFAR-10 ResNet"
STEM, FIRST = "resnet.embedder.embedder.convolution.weight", "resnet.encoder.stages.{}.layers.0.layer.0.convolution.weight"


def _bare(name: str) -> str:
    """A name of theirs as torchvision's; they were saved from a DataParallel."""
    return re.sub(r"^linear\.", "fc.", name.removeprefix("module."))


def from_cifar_resnet(source: str | os.PathLike | dict[str, Tensor]) -> CifarResNetForImageClassification:
    """The model of a state dict, of a file that holds one, or of its https address; in evaluation mode, float32.

    Raises:
        ValueError: tensors are missing or unexpected (the message names them), or of another shape; a file that is damaged or holds other Python objects
            than tensors, none of which is run.
    """
    state, unknown = names.renamed(state_of(source, WANTED), names.RESNET, _bare)
    depths = names.counts(state, r"resnet\.encoder\.stages\.(\d+)\.layers\.(\d+)\.")
    firsts = [STEM, *(FIRST.format(stage) for stage in range(len(depths)))]
    if not depths or any(name not in state for name in firsts):
        raise ValueError(f"Expected the tensors of {WANTED}; found no stem, or no first layer of a stage, in {len(state)} tensors that are known.")
    width, *sizes = (len(state[name]) for name in firsts)
    config = CifarResNetConfig(embedding_size=width, hidden_sizes=sizes, depths=depths, **label_fields(LABELS))
    return model_of(CifarResNetForImageClassification, config, state, WANTED, unknown)


def cifar_resnet_processor(source: str | os.PathLike | dict[str, Tensor]) -> ViTImageProcessorPil:
    """The image processor of these models: 32 x 32 pixels, normalised. It is the same for every source."""
    return ViTImageProcessorPil(size={"height": 32, "width": 32}, image_mean=IMAGENET_DEFAULT_MEAN, image_std=IMAGENET_DEFAULT_STD)
