"""A folder that is a Hugging Face Space: app.py, requirements.txt, README.md, this package, and the models that are folders."""

import re
import shutil
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import yaml
from huggingface_hub.utils import validate_repo_id

import bcos_hf
from bcos_hf.models.bcos_writing import filled_at_once, is_free, write_text


APP = '''"""Why does this network decide so? A B-cos network's explanation is its own computation."""

from pathlib import Path

from bcos_hf.space import serve


HERE = Path(__file__).parent

serve(models=[{models}], conventional={conventional}, examples={examples})
'''
README = """---
{header}---

# {title}

{about}

Upload a picture (or write a text), choose a class, and see which pixels or words speak for it (orange) and against it (blue). The contributions and a constant
add up to the number explained. Models: {models}.

Run it elsewhere: `pip install -r requirements.txt gradio`, then `python app.py`. What visitors send is deleted after two hours at most.
"""
ABOUT = "A **B-cos** network is dynamic linear, y = W(x) x: its explanation is the computation itself, not a guess made afterwards."
# of a folder of a model, what is needed to load it, and the example of its card
WANTED = ("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json", "bcos_conversion.json", "bcos_eval.json")
WANTED += ("model*.safetensors", "model.safetensors.index.json", "configuration_*.py", "modeling_*.py", "bcos_*.py", "example.png")
WANTED += ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.model")
WANTED += ("chat_template.jinja",)


def requirements() -> list[str]:
    """What the package needs, as its metadata says, in the versions that are here; the Space's README names gradio. Raises a ValueError where the package is not installed."""
    try:
        names = [re.match(r"[\w.-]+", line)[0] for line in requires("bcos_hf") or [] if "extra ==" not in line]
        return [f"{name}=={version(name).partition('+')[0]}" for name in names]
    except PackageNotFoundError as error:
        raise ValueError("write_space: expected bcos_hf to be installed, so that its requirements are known: pip install -e .") from error


def header(title: str, models: list[str]) -> dict:
    """The YAML of a Space's README; `models` are Hub ids."""
    made = {"title": title, "emoji": "🔍", "colorFrom": "yellow", "colorTo": "blue", "sdk": "gradio"}
    with suppress(PackageNotFoundError):  # then the Hub takes its newest
        made["sdk_version"] = version("gradio")
    made |= {"app_file": "app.py", "license": "apache-2.0", "short_description": "Which pixels or words made the decision, exactly"}
    return {**made, **({"models": models} if models else {}), "tags": ["b-cos", "interpretability", "explainable-ai"]}


def _placed(source: str | Path, folder: Path) -> str:
    """How app.py names a model: a Hub id as it is, a folder as its copy in the Space. Raises a ValueError for neither."""
    if not Path(source).is_dir():
        validate_repo_id(str(source))
        return repr(str(source))
    name = re.sub(r"[^A-Za-z0-9._-]", "-", Path(source).resolve().name)
    while (folder / name).exists():
        name += "-2"
    (folder / name).mkdir()
    for pattern in WANTED:
        for file in Path(source).glob(pattern):
            shutil.copyfile(file, folder / name / file.name)
    return f"HERE / {name!r}"


def write_space(folder: str | Path, models: list[str | Path], conventional=None, examples: str | Path | None = None, title: str = "B-cos explanations") -> None:
    """Write a Space, all or nothing; arguments as `build`. It needs no network but for models that are Hub ids, and is pushed as any folder.

    Raises:
        ValueError: `folder` is there and not empty, no model, one that is neither folder nor Hub id.
    """
    folder = Path(folder)
    if not is_free(folder):
        raise ValueError(f"--space: expected a new or empty folder, got {folder}.")
    if not models:
        raise ValueError("write_space: expected one or more models, got none.")
    with filled_at_once(folder) as place:
        source = Path(bcos_hf.__file__).parent
        shutil.copytree(source, place / "bcos_hf", ignore=shutil.ignore_patterns("__pycache__"))
        named = [_placed(model, place) for model in models]
        rival = "None" if conventional is None else _placed(conventional, place)
        if examples is not None:
            shutil.copytree(examples, place / "examples")
        shown = "None" if examples is None else "HERE / 'examples'"
        write_text(place / "app.py", APP.format(models=", ".join(named), conventional=rival, examples=shown))
        write_text(place / "requirements.txt", "\n".join(requirements()) + "\n")
        ids = [str(model) for model in [*models, *([] if conventional is None else [conventional])] if not Path(model).is_dir()]
        yaml_header = yaml.safe_dump(header(title, ids), sort_keys=False, allow_unicode=True)
        words = ", ".join(f"`{Path(model).name if Path(model).is_dir() else model}`" for model in models)
        write_text(place / "README.md", README.format(header=yaml_header, title=title, about=ABOUT, models=words))
