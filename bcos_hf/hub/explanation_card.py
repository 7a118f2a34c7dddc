"""The card of a data set of explanations, filled from its splits; what a person added to an existing card stays, see `card_text`."""

from pathlib import Path

import pyarrow.parquet as pq

from bcos_hf import __version__
from bcos_hf.models.bcos_writing import write_text

from .card_text import merged_card, split_card
from .explanation_folder import ExplainedSplit, splits_of


# column -> what it is; of pictures and of texts
COLUMNS = {
    "text": "the text",
    "second_text": "the second text of a pair",
    "image": "the picture as the model saw it, resized and cropped",
    "tokens": "the tokens of the text, special ones included",
    "contributions": "what each pixel [H, W] or token contributes to the logit of the target",
    "target": "the class that is explained",
    "prediction": "the class of the largest logit",
    "label": "the label of the source; -1 where it has none",
    "probability": "sigmoid of the logit",
    "logit": "the logit of the target: the sum of the contributions, plus constant and residual",
    "constant": "what no input contributes: kept biases, the logit bias",
    "residual": "what rounding leaves over",
    "index": "number of the row in the source, from 0",
}
ABOUT = """# {title}

Explanations of a **B-cos** network, {model}, which are the computation itself and no estimate made afterwards: for every row the contributions and the
constant add up to the logit.{source}

```python
from datasets import load_dataset

rows = load_dataset("{repo}", split="{split}")
```

| column | |
|---|---|
{columns}

| split | rows | skipped, as they could not be read |
|---|---|---|
{splits}"""
LIMITS = """## Limits

Contributions say how this model decides, not what is true; they are those of the model as it is, its mistakes included. Inputs are those of the source, whose
licence holds for them."""
CITATION = """## Citation

Method: Boehle et al., *B-cos Networks* (CVPR 2022) and *B-cos Alignment* (TPAMI 2024); Arya et al., *B-cosification* (NeurIPS 2024); Wang et al., *B-cos LM*
(TMLR 2025). Made with bcos_hf {version}."""


def _link(name: str, kind: str = "") -> str:
    return f"[{name}](https://huggingface.co/{kind}{name})"


def explanation_card(splits: list[ExplainedSplit], repo_id: str, existing: str | None = None) -> str:
    """The card for `repo_id` of a folder with `splits`, at least one; of an `existing` card a person's own text, keys and licence stay."""
    about, names = splits[0].about, pq.read_schema(splits[0].shard(0)).names
    model = f"{_link(about['model'])} ({about['class']})" if about["model"] else f"a {about['class']}"
    text = ABOUT.format(
        title=repo_id.split("/")[-1],
        repo=repo_id,
        model=model,
        source=f" The source is {_link(about['source'], 'datasets/')}." if about["source"] else "",
        split=splits[0].name,
        columns="\n".join(f"| {name} | {COLUMNS[name]} |" for name in names),
        splits="\n".join(f"| {split.name} | {split.count('rows')} | {split.count('skipped')} |" for split in splits),
    )
    files = [{"split": split.name, "path": f"data/{split.name}-*.parquet"} for split in splits]
    metadata = {
        "tags": ["b-cos", "explanations", "interpretability", "explainable-ai"],
        "task_categories": ["image-classification" if "image" in names else "text-classification"],
        "configs": [{"config_name": "default", "data_files": files}],
        "license": split_card(existing or "")[0].get("license", "other"),
    }
    if about["source"]:
        metadata["source_datasets"] = [about["source"]]
    return merged_card(existing, metadata, {"about": text, "limits": LIMITS, "citation": CITATION.format(version=__version__)})


def write_explanation_card(folder: Path) -> None:
    """README.md of `folder`, for the splits that are complete."""
    path = folder / "README.md"
    existing = path.read_text(encoding="utf-8") if path.exists() else None
    card = explanation_card([split for split in splits_of(folder) if split.complete], folder.resolve().name, existing)
    write_text(path, card)
