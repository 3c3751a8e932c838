"""Speed and memory on a device that works while the program goes on."""

import gc
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.benchmarks.gpu.table import Measure


WARM_UP = 4  # calls in which memory is allocated and algorithms are chosen


@dataclass(frozen=True)
class Bench:
    """Where is measured, and how long.

    Args:
        device (`torch.device`): a GPU; on a CPU everything is small, to try the program.
        folder (`Path`): for images and outputs.
        seconds (`float`): how long calls are timed.
    """

    device: torch.device
    folder: Path
    seconds: float

    @property
    def is_small(self) -> bool:
        return self.device.type == "cpu"

    def wait(self) -> None:
        """Wait until the device has done everything."""
        if not self.is_small:
            torch.cuda.synchronize()

    def reset_memory(self) -> None:
        if not self.is_small:
            torch.cuda.reset_peak_memory_stats()

    def memory(self) -> float:
        """The largest memory in GB: of the device since [`reset_memory`], or of the process on a CPU."""
        if self.is_small:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        return torch.cuda.max_memory_allocated() / 1e9

    def clean_up(self) -> None:
        """Free what a measure has left behind."""
        gc.collect()
        torch._dynamo.reset()
        if not self.is_small:
            torch.cuda.empty_cache()


def seconds_per_call(call: Callable[[], object], bench: Bench) -> float:
    """The mean time of calls that follow each other without a wait."""
    for _ in range(WARM_UP):
        call()
    once = _time(call, 1, bench)
    count = min(max(int(bench.seconds / once), 2), 1000)
    bench.reset_memory()
    return _time(call, count, bench) / count


def _time(call: Callable[[], object], count: int, bench: Bench) -> float:
    bench.wait()
    started = time.perf_counter()
    for _ in range(count):
        call()
    bench.wait()
    return time.perf_counter() - started


def host_seconds(call: Callable[[], object], bench: Bench) -> float:
    """The median time in which the program issues one call to a device that has nothing else to do."""
    found = []
    for _ in range(5):
        bench.wait()
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def speed(call: Callable[[], object], unit: str, bench: Bench, per_call: int = 1) -> Measure:
    """How many `unit`s are made in a second, if each call makes `per_call` of them."""
    seconds = seconds_per_call(call, bench)
    memory, host = bench.memory(), host_seconds(call, bench)
    return Measure(per_call / seconds, f"{unit}/s", memory, f"{1e3 * seconds:.2f} ms, of the host {1e3 * host:.2f} ms")
