"""The main job on real text, from nothing: `make demo`. Writes outputs/demo/ (model, metrics.json, explanations.html, card).

    python recipes/demo_text.py [--output_dir outputs/demo] [--seed 0]

all-MiniLM-L6-v2 is fine-tuned on human-rated movie-review sentences twice, as it is and as a B-cos LM, with equal budgets (configs/text/vader.yaml). A third
model is the fine-tuned conventional one, turned into a B-cos LM by refitting its layers alone, without labels or training. Then their accuracy, and how
faithful their explanations are, is measured on test sentences that none has seen. What is there with the same settings is reused.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainingArguments, logging

from bcos_hf.baselines import input_x_gradient
from bcos_hf.calibration import bcosify
from bcos_hf.data import lexicon, movie_reviews
from bcos_hf.hub import results_table, write_demo_card
from bcos_hf.metrics import faithfulness
from bcos_hf.metrics.word_valence import word_valence_correlation
from bcos_hf.models.bcos_processors import saved_processor
from bcos_hf.models.bcos_writing import write_json
from bcos_hf.training import DataArguments, ModelArguments, done_once, earlier_result, own_folder, parse, text_trainer, train_and_test, yaml_settings
from bcos_hf.visualization.terminal import harmless_main


CONFIG = Path(__file__).parent / "configs" / "text" / "vader.yaml"
# rate and dropout of the conventional model were chosen on the validation split, without a head-first start; those of bcos, in the YAML, were not searched
KINDS = {"conventional": {"conventional": "true", "learning_rate": "3e-4", "dropout": "0.1"}, "bcos": {}}
REFIT = {"b": 1.5, "calibration": 400}  # of the fine-tuned conventional model: B, and training sentences without their labels
MASKED = 200  # test sentences whose tokens are masked, 19 forward passes each


def trained(kind: str, output: Path, settings: dict) -> tuple:
    """Model, tokenizer, and test accuracy, trained if not trained before with these settings."""

    def train() -> None:
        given = {"output_dir": output / kind, "seed": settings["seed"], "eval_strategy": "no", "save_strategy": "no", **KINDS[kind]}
        argv = [str(CONFIG), *(text for name, value in given.items() for text in (f"--{name}", str(value)))]
        train_and_test(*text_trainer(*parse(argv, ModelArguments, DataArguments, TrainingArguments)))

    folder = done_once(output / kind, {**settings, **KINDS[kind]}, train)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return model, saved_processor(AutoTokenizer, folder), json.loads((folder / "all_results.json").read_text())["test_accuracy"]


def refitted(plain, tokenizer, output: Path, settings: dict):
    """The fine-tuned conventional model as a B-cos LM, refitted if it was not with these settings; nothing is trained."""

    def refit() -> None:
        texts = movie_reviews(seed=settings["seed"])["train"].shuffle(seed=settings["seed"])["text"][: REFIT["calibration"]]
        for part in (bcosify(plain, calibration=list(texts), processor=tokenizer, b=REFIT["b"]), tokenizer):
            part.save_pretrained(output / "refit")

    return AutoModelForSequenceClassification.from_pretrained(done_once(output / "refit", {**settings, "kinds": KINDS, **REFIT}, refit)).eval()


@torch.no_grad()
def decisions(model, texts: list[str], tokenizer) -> torch.Tensor:
    """Predicted classes [N] of the texts, in order of their length, as `batches` has them."""
    return torch.cat([model(**batch).logits.argmax(1) for batch in batches(texts, tokenizer)])


def batches(texts: list[str], tokenizer, size: int = 50) -> list[dict]:
    texts = sorted(texts, key=len)  # little padding
    return [dict(tokenizer(texts[i : i + size], padding=True, truncation=True, return_tensors="pt")) for i in range(0, len(texts), size)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/demo"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.set_verbosity_error()
    start, output, done = time.perf_counter(), own_folder(args.output_dir), args.output_dir / "metrics.json"
    settings = {"config": yaml_settings(CONFIG), "seed": args.seed, "kinds": KINDS, "refit": REFIT, "masked": MASKED}
    plain, tokenizer, plain_accuracy = trained("conventional", output, settings)
    bcos, _, bcos_accuracy = trained("bcos", output, settings)
    if (metrics := earlier_result(done, settings)) is not None:
        return print(results_table(metrics))
    refit = refitted(plain, tokenizer, output, {"config": settings["config"], "seed": args.seed})
    test = movie_reviews(seed=args.seed)["test"]
    ordered, words = sorted(test, key=lambda row: len(row["text"])), lexicon()
    texts, labels = [row["text"] for row in ordered], torch.tensor([row["label"] for row in ordered])
    decided = {name: decisions(model, texts, tokenizer) for name, model in (("conventional", plain), ("bcos", bcos), ("refit", refit))}
    masked = batches(list(test["text"][:MASKED]), tokenizer)
    explained, twins = ([model.explain(**batch, return_weights=False) for batch in tqdm(masked, desc="explaining")] for model in (bcos, refit))
    rivals = [input_x_gradient(plain, **batch) for batch in masked]
    explains = {"bcos": bcos.explain, "refit": refit.explain, "input_x_gradient": partial(input_x_gradient, plain)}
    generator = torch.Generator().manual_seed(args.seed)
    scores = {
        "bcos": (bcos, [e.contributions[:, 0] for e in explained]),
        "refit": (refit, [e.contributions[:, 0] for e in twins]),
        "input_x_gradient": (plain, [e.contributions[:, 0] for e in rivals]),
        "random": (plain, [torch.rand(batch["input_ids"].shape, generator=generator) for batch in masked]),
    }
    metrics = {
        "accuracy": {"conventional": plain_accuracy, "bcos": bcos_accuracy, "refit": (decided["refit"] == labels).double().mean().item()},
        "agreement": {name: (decided[name] == decided["conventional"]).double().mean().item() for name in ("bcos", "refit")},
        "faithfulness": {name: faithfulness(model, masked, score, tokenizer) for name, (model, score) in scores.items()},
        "max_relative_residual": max(e.relative_residual.max().item() for e in (*explained, *twins)),
        "vader_spearman": {name: word_valence_correlation(explain, tokenizer, texts, words) for name, explain in explains.items()},
        "seconds": time.perf_counter() - start,
        "seed": args.seed,
        "n_test": len(test),
        "n_faithfulness": min(MASKED, len(test)),
        "settings": settings,
    }
    shown = bcos.explain(**batches(list(test["text"][:20]), tokenizer)[0], tokenizer=tokenizer, return_weights=False)
    shown.merge_words().to_html(output / "explanations.html", title="Why a B-cos MiniLM finds these 20 test sentences positive or negative")
    print(write_demo_card(output, bcos, tokenizer, metrics))
    write_json(done, metrics)


if __name__ == "__main__":
    harmless_main(main)
