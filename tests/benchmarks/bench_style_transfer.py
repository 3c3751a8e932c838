"""How long the networks of style transfer need for an image of 256x256 pixels, with new weights in the papers' sizes.

    python -m tests.benchmarks.bench_style_transfer --threads 2

It prints the CPU seconds and the seconds of the clock of the fastest of some calls of the pipeline.
"""

import argparse
import time

import torch

from diffusers_ext.models import AdaINStyleNet, FastStyleNet
from diffusers_ext.pipelines import StyleTransferPipeline


def fastest(call, repetitions: int) -> tuple[float, float]:
    """The fewest CPU seconds, and the fewest seconds of the clock, of some calls."""
    call()
    seconds = []
    for _ in range(repetitions):
        before = time.process_time(), time.perf_counter()
        call()
        seconds.append((time.process_time() - before[0], time.perf_counter() - before[1]))
    return tuple(min(column) for column in zip(*seconds, strict=True))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    image, style = torch.rand(2, 1, 3, options.size, options.size)
    small = FastStyleNet(block_out_channels=(16, 32, 64), num_blocks=3)
    networks = {
        "FastStyleNet": (FastStyleNet(), ()),
        "FastStyleNet of the example": (small, ()),
        "AdaIN": (AdaINStyleNet(), (style,)),
    }
    print(f"| {options.size} px, {options.threads} threads | CPU s | s |\n|---|---|---|")
    for name, (network, styles) in networks.items():
        pipe = StyleTransferPipeline(network.eval())
        pipe.set_progress_bar_config(disable=True)
        cpu, clock = fastest(lambda pipe=pipe, styles=styles: pipe(image, *styles), options.repetitions)
        print(f"| {name} | {cpu:.2f} | {clock:.2f} |", flush=True)


if __name__ == "__main__":
    main()
