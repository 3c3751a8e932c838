"""A table whose rows are measured and printed one after the other, until the time is used up."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Measure:
    """What a row found: a number with its unit, the largest memory in GB, and remarks."""

    value: float
    unit: str
    memory: float | None = None
    remark: str = ""


@dataclass
class Row:
    """A row to measure; it is left out where less than `seconds` are left."""

    name: str
    measure: Callable[[], Measure]
    seconds: float = 10.0


def print_rows(rows: list[Row], seconds: float, clean_up: Callable[[], None], output: Path | None = None) -> None:
    """Measure and print rows in this order, for at most `seconds`.

    Args:
        clean_up: called after each row.
        output (`Path`, *optional*): a file that gets a line of JSON for each row as well.
    """
    end = time.monotonic() + seconds
    print(f"{'':<58} {'':>10} {'':<10} {'GB':>7}  remark", flush=True)
    for row in rows:
        left = end - time.monotonic()
        found = {"error": f"left out: {left:.0f} s are left"} if left < row.seconds else measured(row, left)
        clean_up()
        print(f"{row.name:<58} {described(found)}", flush=True)
        if output is not None:
            with output.open("a") as file:
                file.write(json.dumps({"name": row.name, **found}) + "\n")


def measured(row: Row, seconds: float) -> dict:
    """The entries of a row's measure, or its error in one line."""
    try:
        with time_limit(seconds):
            return asdict(row.measure())
    except Exception as error:  # whatever fails in one row, the others are worth the time of the machine
        message = " ".join(str(error).split())
        return {"error": f"{type(error).__name__}: {message}"[:200]}


def described(found: dict) -> str:
    if "error" in found:
        return found["error"]
    memory = "" if found["memory"] is None else f"{found['memory']:.2f}"
    return f"{found['value']:>10.4g} {found['unit']:<10} {memory:>7}  {found['remark']}".rstrip()


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise a `TimeoutError` in this context after so many seconds."""

    def stop(*_) -> None:
        raise TimeoutError("the time was used up")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
