"""Arguments of the text recipe, and a parser that takes a YAML file and overrides it from the command line."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml
from transformers import HfArgumentParser


@dataclass
class ModelArguments:
    """Which model, and how it becomes a B-cos model."""

    model_name_or_path: str = field(default="minilm", metadata={"help": "Hub id, folder, or 'minilm' (all-MiniLM-L6-v2 from the package index)."})
    conventional: bool = field(default=False, metadata={"help": "Fine-tune the ordinary model with the same settings, for comparison."})
    b: float = field(default=1.5, metadata={"help": "Exponent B."})
    weight_norm: str = field(default="unit", metadata={"help": "'unit' or 'none'."})
    use_bias: bool = field(default=False, metadata={"help": "Keep biases."})
    b_schedule: str = field(default="immediate", metadata={"help": "'immediate', 'linear' or 'learnable'."})
    off_labels: str = field(default="zero", metadata={"help": "'zero' (one-hot) or 'uniform' (1/C)."})
    explain_samples: int = field(default=0, metadata={"help": "Explain so many validation texts at every evaluation."})


@dataclass
class DataArguments:
    """Which data: a Hub id, 'vader-movie-reviews', or local csv, parquet or json files."""

    dataset_name: str | None = field(default=None, metadata={"help": "Hub id, or 'vader-movie-reviews'."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of the Hub data set."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Revision of the Hub data set."})
    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    text_column: str | None = None
    second_text_column: str | None = None
    label_column: str | None = None
    max_length: int = field(default=512, metadata={"help": "Longer texts are truncated; how many is logged."})
    max_train_samples: int | None = None
    max_eval_samples: int | None = None


def parse(argv: list[str], *dataclasses) -> tuple:
    """Instances of `dataclasses` from [config.yaml] [--name value ...]; the command line wins.

    Raises:
        ValueError: a name in the YAML file that no dataclass has. OSError: no such file.
    """
    parser = HfArgumentParser(dataclasses)
    if argv and argv[0].endswith((".yaml", ".yml")):
        known = {option for action in parser._actions for option in action.option_strings}
        values = yaml.safe_load(Path(argv[0]).read_text(encoding="utf-8")) or {}
        unknown = sorted(name for name in values if f"--{name}" not in known)
        if unknown:
            raise ValueError(f"{argv[0]}: unknown settings {unknown}; see --help for those there are.")
        listed = {name: value if isinstance(value, list) else [value] for name, value in values.items() if value is not None}
        argv = [text for name, value in listed.items() for text in (f"--{name}", *map(str, value))] + argv[1:]
    return parser.parse_args_into_dataclasses(argv)
