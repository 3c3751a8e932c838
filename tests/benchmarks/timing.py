"""Side-by-side timing in one process."""

import statistics
import time
from collections.abc import Callable


def alternate(functions: dict[str, Callable[[], object]], rounds: int, warmup: int = 2) -> dict[str, float]:
    """The median seconds of each function, called in turn: A B A B ...

    A machine that slows down for a while slows down all of them, so the ratios hold where absolute times do not.
    """
    seconds = {name: [] for name in functions}
    for round_ in range(warmup + rounds):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            if round_ >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(title: str, medians: dict[str, float], baseline: str) -> None:
    """Print each median beside its ratio to the baseline's."""
    print(f"\n{title}")
    for name, seconds in medians.items():
        print(f"  {name:<40} {seconds * 1000:9.1f} ms   {medians[baseline] / seconds:5.2f}x")
