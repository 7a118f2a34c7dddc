"""Published checkpoints as our models; name maps are data."""

from .bcos_lm import from_bcos_lm
from .bcos_v2 import bcos_v2_processor, from_bcos_v2
from .bcosification import from_bcosification
from .cifar_resnet import cifar_resnet_processor, from_cifar_resnet
from .openai_clip import from_openai_clip


__all__ = [
    "FORMATS",
    "bcos_v2_processor",
    "cifar_resnet_processor",
    "from_bcos_lm",
    "from_bcos_v2",
    "from_bcosification",
    "from_cifar_resnet",
    "from_openai_clip",
]

# name of a format -> what makes its model, and what makes the model's image processor (None: stock); both take a source, and a name where there are several
FORMATS = {
    "bcos-lm": (from_bcos_lm, None),
    "bcos-v2": (from_bcos_v2, bcos_v2_processor),
    "bcosification": (from_bcosification, None),
    "cifar-resnet": (from_cifar_resnet, cifar_resnet_processor),
    "openai-clip": (from_openai_clip, None),
}
