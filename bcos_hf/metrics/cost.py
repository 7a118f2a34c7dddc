"""What a computation costs against another: seconds in turns, and peak memory of a process. Ratios, for machines are shared and differ."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from tqdm.auto import tqdm


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
