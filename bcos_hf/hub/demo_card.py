"""The card of the demo's model: every number comes from metrics.json, the example from running the model."""

from pathlib import Path

import torch

from bcos_hf import __version__
from bcos_hf.models.bcos_writing import write_text


CARD = """---
library_name: transformers
pipeline_tag: text-classification
tags: [b-cos, interpretability, text-classification]
base_model: sentence-transformers/all-MiniLM-L6-v2
base_model_relation: finetune
license: apache-2.0
language: en
---

# B-cos MiniLM for the sentiment of movie-review sentences

A B-cos LM: all-MiniLM-L6-v2 whose linear layers became |cos(x, w)|^(B-1) (w . x) without bias, each refitted to what it had computed with one, fine-tuned for
one epoch. Its explanations are its computation: the contributions of the tokens add up to the logit.

```python
import bcos_hf  # or trust_remote_code=True
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("bcos")
tokenizer = AutoTokenizer.from_pretrained("bcos")
inputs = tokenizer("{example}", return_tensors="pt")
explanation = model.explain(**inputs, tokenizer=tokenizer).merge_words()
list(zip(explanation.tokens[0], explanation.contributions[0, 0].tolist()))
```

prints, for the predicted class `{label}` with logit {logit:.3f}:

```
{shown}
```

{table}

Faithfulness: {n_faithfulness} test sentences, predicted class, area under the drop of its probability over 10 to 90 % of the tokens (comprehensiveness:
tokens masked, higher is better; sufficiency: only they are kept, lower is better). Spearman: word contributions against VADER's human word valences.
Seed {seed}, {n_test} test sentences, bcos_hf {version}. The largest relative residual of an explanation is {residual:.1e}.

Limits: short English sentences about films; trained for minutes, to show the method. Contributions say how the model decides, not what is true.

Data: Hutto & Gilbert, VADER (ICWSM 2014); sentences from Pang & Lee. Method: Wang et al., B-cos LM (TMLR 2025); Arya et al., B-cosification (NeurIPS 2024).
"""


def results_table(metrics: dict) -> str:
    """The demo's metrics as one Markdown table."""
    faithful, spearman = metrics["faithfulness"], metrics["vader_spearman"]

    def row(name: str, kind: str, metric: str) -> str:
        values = [f"{faithful[metric][key]:.3f}" for key in ("comprehensiveness", "sufficiency")]
        rho = f"{spearman[metric]:.3f}" if metric in spearman else ""
        agrees = f"{100 * metrics['agreement'][kind]:.1f} %" if kind in metrics["agreement"] else ""
        return f"| {name} | {100 * metrics['accuracy'][kind]:.1f} % | {agrees} | {' | '.join(values)} | {rho} |"

    return "\n".join(
        [
            "| explanation | accuracy | agrees with the conventional model | comprehensiveness | sufficiency | Spearman |",
            "|---|---|---|---|---|---|",
            row("B-cos contributions", "bcos", "bcos"),
            row("B-cos contributions, the conventional model refitted, not trained", "refit", "refit"),
            row("input x gradient, conventional model", "conventional", "input_x_gradient"),
            row("random ranking, conventional model", "conventional", "random"),
        ]
    )


@torch.no_grad()
def write_demo_card(folder: Path, model, tokenizer, metrics: dict, example: str = "A charming film, in spite of a dull plot.") -> str:
    """Write README.md into `folder` and into the model's own; returns the table of results."""
    explanation = model.explain(**tokenizer(example, return_tensors="pt"), tokenizer=tokenizer, return_weights=False).merge_words()
    table, target = results_table(metrics), int(explanation.targets[0, 0])
    card = CARD.format(
        example=example,
        label=explanation.labels[target],
        logit=explanation.logits[0, target],
        shown="\n".join(f"{token:12} {value:+.3f}" for token, value in zip(explanation.tokens[0], explanation.contributions[0, 0].tolist(), strict=True)),
        table=table,
        residual=metrics["max_relative_residual"],
        version=__version__,
        **{key: metrics[key] for key in ("n_faithfulness", "seed", "n_test")},
    )
    for path in (Path(folder, "README.md"), Path(folder, "bcos", "README.md")):
        write_text(path, card)
    return table
