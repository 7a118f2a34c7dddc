"""What a computation costs against another: seconds in turns, and peak memory. Ratios, for machines are shared and differ; lower is better."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory

import datasets
import evaluate
import torch
from torch.profiler import ProfilerActivity, profile
from tqdm.auto import tqdm

from bcos_hf.metrics.bootstrap import measured


# for glibc: hold on to freed memory, as tcmalloc and jemalloc do; or give it back at once, so that the resident size is what is in use
KEEP = {"MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_MMAP_THRESHOLD_": "8000000000"}
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def seconds(run: Callable, *args) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    run(*args)
    return time.perf_counter() - start


def spread(ratios: list[float]) -> dict:
    """Median, quartiles, extremes and number of at least two ratios."""
    low, _, high = statistics.quantiles(ratios, n=4)
    return {"median": statistics.median(ratios), "quartiles": [low, high], "min": min(ratios), "max": max(ratios), "n": len(ratios)}


def ratio_in_turns(name: str, first: tuple, second: tuple, rounds: int, scale: float = 1.0) -> dict:
    """Spread of seconds(first) / seconds(second) * scale over neighbouring calls; each is a function and its arguments. Two more pairs warm up."""
    pairs = [(seconds(*first), seconds(*second)) for _ in tqdm(range(rounds + 2), desc=name)]
    return spread([one / other * scale for one, other in pairs[2:]])


def peak_memory(run: Callable, *args) -> int:
    """Bytes of resident memory that one call adds at its peak (Linux); best in a process of its own."""
    Path("/proc/self/clear_refs").write_text("5")  # start a new high-water mark
    before = _resident("VmRSS")
    run(*args)
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) * 1024


def peak_tensor_memory(device: str | torch.device, run: Callable, *args) -> int:
    """Bytes that the tensors of one call add on a GPU, or on the CPU, where every allocation is traced, at their peak."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(*args)
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's tracer says when it starts and stops
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as traced:
        run(*args)
    with TemporaryDirectory() as place:
        traced.export_chrome_trace(file := str(Path(place, "trace.json")))
        events = json.loads(Path(file).read_text(encoding="utf-8"))["traceEvents"]
    moves = sorted((event["ts"], event["args"]["Ev Idx"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]")
    return max(accumulate((size for *_, size in moves), initial=0))


def peak_ratio(name: str, first: list[str], second: list[str], rounds: int = 3) -> dict:
    """Spread of the ratios of two Python scripts' results, each script and its arguments run in turn, in processes that give memory back."""
    env = {**{key: value for key, value in os.environ.items() if key not in KEEP}, **GIVE_BACK}

    def result(arguments: list[str]) -> float:
        return float(subprocess.run([sys.executable, *arguments], env=env, check=True, capture_output=True, text=True).stdout.split()[-1])

    return spread([result(first) / result(second) for _ in tqdm(range(rounds), desc=name)])


def keep_memory() -> None:
    """Start this script anew, with an allocator that keeps freed memory, unless it has one."""
    if any(os.environ.get(key) != value for key, value in KEEP.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP})


def machine() -> dict:
    """What numbers of this process were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    kept = all(os.environ.get(key) == value for key, value in KEEP.items())
    return {"cpu": cpu, "cores": os.cpu_count(), "torch": torch.__version__, "python": platform.python_version(), "allocator_keeps_memory": kept}


class CostInForwardPasses(evaluate.Metric):
    """`compute(predictions=seconds or bytes of explanations [N], references=those of forward passes [N])`: mean ratio with its 95 % interval."""

    def _info(self):
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="predictions: cost of explaining each input; references: of a forward pass of it, measured in turns with the explanation.",
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(self, predictions, references, seed=0):
        return measured("cost_in_forward_passes", torch.tensor(predictions) / torch.tensor(references), seed=seed)
