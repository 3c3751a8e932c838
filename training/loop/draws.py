"""Random numbers that depend on the seed, the step and the sample, and on nothing else."""

from collections.abc import Sequence

import torch

from diffusers_ext.data.randomness import derive_seed


def seed_default_generator(seed: int) -> None:
    """Seed the generator that dropout inside of networks draws from."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # without a GPU, torch.manual_seed would queue each seed for one, with a stack trace
        torch.default_generator.manual_seed(seed)


class Draw:
    """The random numbers of a recipe in one step, sample by sample.

    The numbers of a sample are a function of (`seed`, step, index of the sample in the global batch). So a resumed run
    draws the same numbers as an uninterrupted one, and splitting a batch over processes or accumulation steps changes
    nothing. Each call continues the streams of its samples, so a recipe must draw in the same order in every step.
    `step` is the number of the step, from 0; `generators` are the streams, one for each sample, for models that draw
    by themselves. A counter-based generator for all samples at once takes 4 to 20 times as long
    (tests/benchmarks/bench_draws.py).

    Args:
        seed (`int`): the seed of the run.
        device (`torch.device`): where the numbers are drawn; a CPU and a GPU draw different numbers.

    Attributes:
        host (`Draw`): draws on the CPU, for decisions that the program makes: reading a number that was drawn on a GPU
            would wait for all that the GPU has to do. On a CPU this is the same object.
    """

    def __init__(self, seed: int, device: torch.device):
        self.seed = seed
        self.device = device
        self._pool: list[torch.Generator] = []
        self.host = self if device.type == "cpu" else Draw(derive_seed(seed, "host"), torch.device("cpu"))

    def begin(self, step: int, rows: Sequence[int]) -> "Draw":
        """Start the streams of the samples at `rows` of the global batch of `step`."""
        self.step = step
        while len(self._pool) < len(rows):
            self._pool.append(torch.Generator(self.device))
        self.generators = self._pool[: len(rows)]
        for row, generator in zip(rows, self.generators, strict=True):
            generator.manual_seed(derive_seed(self.seed, "step", step, row))
        if self.host is not self:
            self.host.begin(step, rows)
        return self

    def select(self, rows: Sequence[int]) -> "Draw":
        """The streams of the samples at `rows` of this batch; the other streams stay where they are."""
        selected = Draw(self.seed, self.device)
        selected.step, selected.generators = self.step, [self.generators[row] for row in rows]
        if self.host is not self:
            selected.host = self.host.select(rows)
        return selected

    def _filled(self, shape: tuple[int, ...], fill) -> torch.Tensor:
        # Drawn in float32 and in the default memory layout, so that precision and layout do not change the numbers.
        drawn = torch.empty((len(self.generators), *shape), device=self.device)
        for row, generator in zip(drawn, self.generators, strict=True):
            fill(row, generator)
        return drawn

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal numbers, float32 of shape (N, *shape)."""
        return self._filled(shape, lambda row, generator: row.normal_(generator=generator))

    def normal_like(self, samples: torch.Tensor) -> torch.Tensor:
        """Standard normal numbers in the shape of `samples` (N, ...), float32."""
        return self.normal(*samples.shape[1:])

    def uniform(self, *shape: int) -> torch.Tensor:
        """Uniform numbers in [0, 1), float32 of shape (N, *shape)."""
        return self._filled(shape, lambda row, generator: row.uniform_(generator=generator))

    def integers(self, high: int) -> torch.Tensor:
        """Uniform integers in [0, high), int64 of shape (N,)."""
        return self._filled((), lambda row, generator: row.random_(0, high, generator=generator)).long()

    def dropout(self, labels: torch.Tensor, probability: float, replacement: int) -> torch.Tensor:
        """`labels` (N,), each replaced with the given probability."""
        return torch.where(self.uniform() < probability, replacement, labels)
