"""What B-cos costs: a B-cos model against the plain one, in one process and in turns. Writes results/bench/{text,resnet50,vit_s}.json.

    python recipes/benchmark.py [text resnet50 vit_s] [--rounds 11] [--output results/bench]

Times are medians of the ratios of neighbouring runs, with an allocator that keeps freed memory, as tcmalloc and jemalloc do, which PyTorch's tuning
guide advises: glibc gives it back to the system, and fetching it again page by page would be what is timed. Memory is the peak resident size of a process
of its own above the loaded model: of forward and backward for training (an optimiser's state, equal for both, would only dilute the ratio), and of one
explanation against one input gradient.
"""

import argparse
import json
import os
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from bcos_hf import bcosify
from bcos_hf.metrics.cost import keep_memory, machine, peak_memory, peak_ratio, ratio_in_turns
from bcos_hf.models.bcos_writing import write_text
from bcos_hf.visualization.terminal import harmless_main


BATCH, CLASSES = 8, 10
VIT_S = dict(hidden_size=384, num_attention_heads=6, intermediate_size=1536)
# name -> (plain model, B, shape of a batch)
MODELS = {
    "text": (lambda: BertForSequenceClassification(BertConfig(num_labels=CLASSES)), 1.5, (BATCH, 128)),
    "resnet50": (lambda: ResNetForImageClassification(ResNetConfig(num_labels=CLASSES)), 2.0, (BATCH, 3, 224, 224)),
    "vit_s": (lambda: ViTForImageClassification(ViTConfig(**VIT_S, num_labels=CLASSES)), 2.0, (BATCH, 3, 224, 224)),
}


def build(name: str, kind: str):
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count())
    make, b, shape = MODELS[name]
    model = make().eval()
    model = bcosify(model, b=b) if kind == "bcos" else model
    generator = torch.Generator().manual_seed(0)
    if len(shape) == 2:
        ids = torch.randint(1000, 30000, shape, generator=generator)
        model.batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    else:
        model.batch = {"pixel_values": torch.randn(shape, generator=generator)}
    return model


def forward(model):
    with torch.no_grad():
        model.eval()(**model.batch)


def backward(model):
    logits = model.train()(**model.batch).logits
    torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits)).backward()


def training_step(model):
    backward(model)
    model.optimizer.step()
    model.optimizer.zero_grad()


def input_gradient(model):
    batch = dict(model.eval().batch)
    x = batch.pop("pixel_values") if "pixel_values" in batch else model.get_input_embeddings()(batch.pop("input_ids"))
    x = x.detach().requires_grad_()
    logits = model(**{"pixel_values" if x.dim() == 4 else "inputs_embeds": x}, **batch).logits
    return torch.autograd.grad(logits[:, 0].sum(), x)[0] * x


def explain(model, targets=0):
    return model.explain(**model.batch, targets=targets)


def measure(name: str, rounds: int) -> dict:
    plain, bcos = build(name, "plain"), build(name, "bcos")
    for model in (plain, bcos):
        model.optimizer = torch.optim.AdamW(model.parameters())
    nine = torch.arange(9).expand(BATCH, 9)

    def peak(kind: str, run: str) -> list[str]:
        return [__file__, "--peak", name, kind, run]

    return {
        "forward": ratio_in_turns("forward", (forward, bcos), (forward, plain), rounds),
        "explanation_time": ratio_in_turns("explanation", (explain, bcos), (input_gradient, plain), rounds),
        "k9": ratio_in_turns("9 targets", (lambda model: explain(model, nine), bcos), (explain, bcos), max(3, rounds // 3), 1 / 9),
        "training_step": ratio_in_turns("training step", (training_step, bcos), (training_step, plain), rounds),
        "training_memory": peak_ratio("training memory", peak("bcos", "backward"), peak("plain", "backward")),
        "explanation_memory": peak_ratio("explanation memory", peak("bcos", "explain"), peak("plain", "input_gradient")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--output", type=Path, default=Path("results/bench"))
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        return print(peak_memory(globals()[args.peak[2]], build(*args.peak[:2])))
    keep_memory()
    args.output.mkdir(parents=True, exist_ok=True)
    for name in args.names:
        ratios = measure(name, args.rounds)
        text = json.dumps({"ratios": ratios, "batch": MODELS[name][2], "b": MODELS[name][1], "machine": machine()}, indent=2)
        write_text(args.output / f"{name}.json", text + "\n")
        for key, ratio in ratios.items():
            print(f"{name:9} {key:20} {ratio['median']:.3f}   (quartiles {ratio['quartiles'][0]:.3f} to {ratio['quartiles'][1]:.3f}, n = {ratio['n']})")


if __name__ == "__main__":
    harmless_main(main)
