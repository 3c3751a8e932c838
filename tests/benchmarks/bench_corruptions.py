"""The time to degrade a batch of 16 RGB images of 64x64 pixels, for each restoration task.

    python -m tests.benchmarks.bench_corruptions

First measured: 2 to 35 ms on one core, far less than a training step.
"""

import torch

from diffusers_ext.data.corruptions import CORRUPTIONS, load_corruptions
from diffusers_ext.training.loop.draws import Draw
from tests.benchmarks.timing import alternate


BATCH_SIZE, ROUNDS = 16, 20


def main() -> None:
    torch.set_num_threads(1)
    images = torch.rand(BATCH_SIZE, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    draw = Draw(0, torch.device("cpu"))

    def degrade(corrupt):
        return lambda: corrupt(images, draw.begin(0, range(BATCH_SIZE)))

    tasks = load_corruptions(list(CORRUPTIONS))
    medians = alternate({name: degrade(corrupt) for name, corrupt in tasks.items()}, ROUNDS)
    for name, seconds in medians.items():
        print(f"{name:<20} {seconds * 1000:6.1f} ms")


if __name__ == "__main__":
    main()
