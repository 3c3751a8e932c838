"""All figures of a GPU, in one table that grows: speed and memory of training and sampling, optimizers, copies, waits.

    python -m tests.benchmarks.gpu --minutes 9

Rows are printed as soon as they are measured, in the order of their worth; a row that fails prints its error, and the
program goes on. Images, weights and noise are random. Memory is the largest that PyTorch has allocated in the timed
calls. "of the host" is the time in which the program issues one call: where it is as long as the call, the device is
waiting for the program.

`--device cpu` tries the program on a machine without a GPU: tiny networks, nothing is compiled, and the figures mean
nothing.
"""

import argparse
import os
import tempfile
from pathlib import Path

import torch

from tests.benchmarks.gpu.clock import Bench
from tests.benchmarks.gpu.rows import all_rows
from tests.benchmarks.gpu.table import print_rows


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="No row begins that would end later.")
    parser.add_argument("--seconds", type=float, default=2.0, help="How long the calls of a row are timed.")
    parser.add_argument("--only", default="", help="Only rows whose names contain this text.")
    parser.add_argument("--output", type=Path, help="A file to which each row is added as a line of JSON.")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
        torch.compiler.set_stance("force_eager")
    elif not torch.cuda.is_available():
        parser.error("this measures a GPU, and PyTorch finds none; --device cpu tries the program without one")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(torch.device(arguments.device), Path(folder), arguments.seconds)
        rows = [row for row in all_rows(bench) if arguments.only in row.name]
        print(title(bench), flush=True)
        print_rows(rows, 60 * arguments.minutes, bench.clean_up, arguments.output)


def title(bench: Bench) -> str:
    """The device and the versions."""
    name = "CPU" if bench.is_small else torch.cuda.get_device_name()
    return f"{name}, PyTorch {torch.__version__}"


if __name__ == "__main__":
    main()
