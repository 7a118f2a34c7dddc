"""Texts and decoders by refit alone: no label, no training. Writes results/demos/refit_text.json; parts not given are left out.

    python recipes/refit_text.py [--stories PATH] [--smollm2 PATH --news FILE --reviews FILE] [--classifier PATH ...] [--minilm]

PATH is the folder of a model: a Llama that samples its own texts, a SmolLM2, MiniLM classifiers (the text demo's conventional one).
FILE is a parquet file with a column "text"; the news calibrate, too. All is measured on texts that did not calibrate.
"""

import argparse
import json
import math
import time
from itertools import chain, islice
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, logging

from bcos_hf import bcosify
from bcos_hf.data import minilm_folder, movie_reviews
from bcos_hf.metrics import bootstrap_interval, faithfulness
from bcos_hf.metrics.agreement import conversion_kept
from bcos_hf.metrics.cost import machine
from bcos_hf.models.bcos_processors import saved_processor
from bcos_hf.models.bcos_writing import write_json
from bcos_hf.visualization.terminal import harmless_main


SEEDS, LENGTH, BATCH, MASKED = (0, 1, 2), 128, 8, 200
WAYS = {"stories": (1.1, 1.25, 1.5), "smollm2": (1.1, 1.25), "minilm": (1.1, 1.5), "classifier": (1.0, 1.5, 2.0)}


def refitted(standard, b: float, calibration: list, settings: dict, **more) -> tuple:
    """The twin, and what its refit took."""
    start, cpu = time.perf_counter(), time.process_time()
    twin = bcosify(standard, calibration=calibration, b=b, keep_biases=False, refit=settings, **more)
    return twin, {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}


def perplexities(standard, twin, texts: torch.Tensor) -> dict:
    """Both perplexities, and their ratio with an interval over texts [N, L], each by the mean over its tokens."""
    kept = [conversion_kept(standard, twin, [({"input_ids": text[None]}, None)]) for text in texts]
    logs = {name: torch.tensor([math.log(one[name]["mean"]) for one in kept]) for name in ("standard_perplexity", "perplexity")}
    ratio = bootstrap_interval(logs["perplexity"] - logs["standard_perplexity"])
    means = {name: values.mean().exp().item() for name, values in logs.items()}
    return {**means, "ratio": {name: math.exp(value) for name, value in ratio.items()}, "n": len(texts)}


def packed(file: str, tokenizer, count: int) -> torch.Tensor:
    """[count, LENGTH] tokens of a file's texts, one after the other."""
    texts = Dataset.from_parquet(file)["text"]
    return torch.tensor(list(islice(chain.from_iterable(tokenizer(text)["input_ids"] for text in texts), count * LENGTH))).view(count, LENGTH)


def stories(b: float, seed: int, args) -> dict:
    standard = AutoModelForCausalLM.from_pretrained(args.stories, dtype=torch.float32).eval()
    torch.manual_seed(seed)
    first = torch.full((300, 1), standard.config.bos_token_id)
    texts = standard.generate(first, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=LENGTH - 1, min_new_tokens=LENGTH - 1)
    twin, cost = refitted(standard, b, list(texts[100:].split(BATCH)), args.refit)
    return {**perplexities(standard, twin, texts[:100]), "calibration": 200, **cost}


def smollm2(b: float, seed: int, args) -> dict:
    standard = AutoModelForCausalLM.from_pretrained(args.smollm2, dtype=torch.float32).eval()
    news = packed(args.news, tokenizer := saved_processor(AutoTokenizer, args.smollm2), args.held_out + args.sequences)
    twin, cost = refitted(standard, b, list(news[args.held_out :].split(BATCH)), args.refit)
    tests = {"news": news[: args.held_out], "reviews": packed(args.reviews, tokenizer, args.held_out)}
    return {**{name: perplexities(standard, twin, ids) for name, ids in tests.items()}, "calibration": args.sequences, **cost}


def tokenized(texts: list[str], tokenizer, size: int = 32) -> list[dict]:
    texts = sorted(texts, key=len)  # little padding
    return [dict(tokenizer(texts[i : i + size], padding=True, truncation=True, return_tensors="pt")) for i in range(0, len(texts), size)]


def minilm(b: float, seed: int, args) -> dict:
    standard, tokenizer = AutoModel.from_pretrained(minilm_folder()).eval(), saved_processor(AutoTokenizer, minilm_folder())
    data = movie_reviews(seed=seed)
    twin, cost = refitted(standard, b, list(data["train"]["text"][: args.sentences]), args.refit, processor=tokenizer)
    kept = conversion_kept(standard, twin, [(inputs, None) for inputs in tokenized(data["test"]["text"][:400], tokenizer)])
    return {**kept, "calibration": args.sentences, **cost}


def classifier(b: float, seed: int, args) -> dict:
    folder = args.classifier[seed]
    standard = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer, data = saved_processor(AutoTokenizer, folder), movie_reviews(seed=0)
    twin, cost = refitted(standard, b, list(data["train"]["text"][: args.sentences]), args.refit, processor=tokenizer)
    rows = [(dict(tokenizer([row["text"]], truncation=True, return_tensors="pt")), torch.tensor([row["label"]])) for row in data["test"]]
    masked = tokenized(data["test"]["text"][:MASKED], tokenizer)
    scores = [twin.explain(**inputs, return_weights=False).contributions[:, 0] for inputs in masked]
    faithful = {name: faithfulness(model, masked, scores, tokenizer) for name, model in (("twin", twin), ("standard", standard))}
    return {**conversion_kept(standard, twin, rows), "faithfulness": faithful, "calibration": args.sentences, **cost}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("stories", "smollm2", "news", "reviews"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--classifier", nargs="*", default=[], help="folders of classifiers, one a seed")
    parser.add_argument("--minilm", action="store_true")
    for name, default, text in (("sequences", 48, "that calibrate SmolLM2"), ("held_out", 24, "that measure it"), ("sentences", 1000, "that calibrate MiniLM")):
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    parser.add_argument("--b", type=float, nargs="*", help="of those that are measured, these alone")
    parser.add_argument("--refit", type=json.loads, default={}, help="settings of RefitSettings")
    parser.add_argument("--output", type=Path, default=Path("results/demos/refit_text.json"))
    args = parser.parse_args()
    logging.set_verbosity_error()
    seeds = {"smollm2": (0,), "classifier": range(len(args.classifier))}
    found = json.loads(args.output.read_text()) if args.output.exists() else {}
    for measure in (stories, minilm, classifier, smollm2):
        name = measure.__name__
        ways = [b for b in WAYS[name] if args.b is None or b in args.b]
        for b in ways if getattr(args, name) else ():
            runs = [{"seed": seed, **measure(b, seed, args)} for seed in seeds.get(name, SEEDS)]
            hardware = {**machine(), "threads": torch.get_num_threads()}
            found.setdefault(name, {})[str(b)] = {"runs": runs, "refit": args.refit, "machine": hardware}
            write_json(args.output, {"command": "python recipes/refit_text.py", **found}, indent=1)
            print(name, b, json.dumps(runs), flush=True)


if __name__ == "__main__":
    harmless_main(main)
