"""Random numbers of a training step: a generator for each sample, beside a counter-based generator.

    python -m tests.benchmarks.bench_draws

`Draw` calls a random kernel for each sample. A counter-based generator (Philox 4x32-10, Salmon et al. 2011, "Parallel
Random Numbers: As Easy as 1, 2, 3") computes the numbers of all samples at once, but torch has none whose key differs
from row to row, so it takes some 130 operations on integers. First measured on one core: 4 to 20 times as long as a
generator for each sample, so it does not pay.
"""

import math

import torch

from diffusers_ext.training.loop.draws import Draw
from tests.benchmarks.timing import alternate, report


LOW_32_BITS = 0xFFFFFFFF


def philox(counter: torch.Tensor, draw: int, keys: torch.Tensor) -> torch.Tensor:
    """Four random 32-bit numbers for each key (N, 2) and each counter (M,): int64 (N, M, 4)."""
    first = counter.expand(len(keys), -1)
    second, third, fourth = (torch.full_like(first, value) for value in (draw, 0, 0))
    key, other_key = keys[:, :1], keys[:, 1:]
    for _ in range(10):
        product, other_product = first * 0xD2511F53, third * 0xCD9E8D57
        first, third = _high(other_product) ^ second ^ key, _high(product) ^ fourth ^ other_key
        second, fourth = other_product & LOW_32_BITS, product & LOW_32_BITS
        key, other_key = key + 0x9E3779B9 & LOW_32_BITS, other_key + 0xBB67AE85 & LOW_32_BITS
    return torch.stack([first, second, third, fourth], dim=-1)


def _high(product: torch.Tensor) -> torch.Tensor:
    return product >> 32 & LOW_32_BITS


def normal(keys: torch.Tensor, draw: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal numbers (N, *shape), by the transform of Box and Muller."""
    number = math.prod(shape)
    uniform = (philox(torch.arange((number + 3) // 4), draw, keys).float() + 0.5) * 2**-32
    radius, angle = (-2 * uniform[..., :2].log()).sqrt(), 2 * math.pi * uniform[..., 2:]
    numbers = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=-1)
    return numbers.flatten(1)[:, :number].view(-1, *shape)


def main() -> None:
    torch.set_num_threads(1)
    for batch_size, shape in [(48, (1, 8, 8)), (16, (3, 32, 32)), (16, (3, 64, 64)), (16, (3, 256, 256))]:
        draws, keys = Draw(0, torch.device("cpu")), torch.randint(0, LOW_32_BITS, (batch_size, 2))

        def each_sample(draws=draws, shape=shape, rows=range(batch_size)):
            draws.begin(0, rows)
            return draws.uniform(), draws.uniform(), draws.normal(*shape)

        def all_samples(keys=keys, shape=shape):
            return normal(keys, 0, ()), normal(keys, 1, ()), normal(keys, 2, shape)

        medians = alternate({"a generator for each sample": each_sample, "counter-based": all_samples}, rounds=10)
        report(f"Timesteps, dropped labels and noise: {batch_size} x {shape}", medians, "a generator for each sample")


if __name__ == "__main__":
    main()
