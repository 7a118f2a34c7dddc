"""What B-cos costs: a B-cos BERT against the plain one, in one process and in turns. Writes results/bench/text.json.

    python recipes/benchmark_text.py [--rounds 15] [--output results/bench/text.json]

Times are medians of the ratios of neighbouring runs, with an allocator that keeps freed memory, as tcmalloc and jemalloc do, which PyTorch's tuning
guide advises: glibc gives it back to the system, and fetching it again page by page would be what is timed. Memory is the peak resident size of a process
of its own above the loaded model: of forward and backward for training (an optimiser's state, equal for both, would only dilute the ratio), and of one
explanation against one input gradient.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import BertConfig, BertForSequenceClassification

from bcos_hf.metrics.cost import peak_memory, ratio_in_turns, spread
from bcos_hf.models.modeling_bcos_bert import BcosBertForSequenceClassification


BATCH, LENGTH, CLASSES = 8, 128, 10
KEEP = {"MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_MMAP_THRESHOLD_": "8000000000"}
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # so that the resident size is what is in use


def build(kind: str):
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count())
    model = BertForSequenceClassification(BertConfig(num_labels=CLASSES)).eval()
    return BcosBertForSequenceClassification.from_standard(model, b=1.5) if kind == "bcos" else model


def batch():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 30000, (BATCH, LENGTH), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def forward(model):
    with torch.no_grad():
        model.eval()(**batch())


def backward(model):
    logits = model.train()(**batch()).logits
    torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits)).backward()


def training_step(model):
    backward(model)
    model.optimizer.step()
    model.optimizer.zero_grad()


def input_gradient(model):
    embeds = model.eval().get_input_embeddings()(batch()["input_ids"]).detach().requires_grad_()
    logits = model(inputs_embeds=embeds, attention_mask=batch()["attention_mask"]).logits
    return torch.autograd.grad(logits[:, 0].sum(), embeds)[0] * embeds


def explain(model, targets=0):
    return model.explain(**batch(), targets=targets)


def peak_of(kind: str, run: str) -> float:
    """Peak bytes above the loaded model, of one run in a process of its own."""
    env = {**{name: value for name, value in os.environ.items() if name not in KEEP}, **GIVE_BACK}
    command = [sys.executable, __file__, "--peak", kind, run]
    return float(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.split()[-1])


def memory(name: str, first: tuple[str, str], second: tuple[str, str], rounds: int) -> dict:
    return spread([peak_of(*first) / peak_of(*second) for _ in tqdm(range(rounds), desc=name)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--output", type=Path, default=Path("results/bench/text.json"))
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        return print(peak_memory(globals()[args.peak[1]], build(args.peak[0])))
    if any(os.environ.get(name) != value for name, value in KEEP.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP})
    plain, bcos = build("plain"), build("bcos")
    for model in (plain, bcos):
        model.optimizer = torch.optim.AdamW(model.parameters())
    nine = torch.arange(9).expand(BATCH, 9)
    ratios = {
        "forward": ratio_in_turns("forward", (forward, bcos), (forward, plain), args.rounds),
        "explanation_time": ratio_in_turns("explanation", (explain, bcos), (input_gradient, plain), args.rounds),
        "k9": ratio_in_turns("9 targets", (lambda model: explain(model, nine), bcos), (explain, bcos), max(3, args.rounds // 3), 1 / 9),
        "training_step": ratio_in_turns("training step", (training_step, bcos), (training_step, plain), args.rounds),
        "training_memory": memory("training memory", ("bcos", "backward"), ("plain", "backward"), 3),
        "explanation_memory": memory("explanation memory", ("bcos", "explain"), ("plain", "input_gradient"), 3),
    }
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "unknown")
    machine = {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "allocator": "glibc, keeping memory",
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({"ratios": ratios, "batch": BATCH, "length": LENGTH, "machine": machine}, indent=2) + "\n")
    for name, ratio in ratios.items():
        print(f"{name:20} {ratio['median']:.3f}   (quartiles {ratio['quartiles'][0]:.3f} to {ratio['quartiles'][1]:.3f}, n = {ratio['n']})")


if __name__ == "__main__":
    main()
