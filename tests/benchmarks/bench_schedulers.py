"""A scheduler's step: ours against diffusers', on the same tensors, on one thread.

    python -m tests.benchmarks.bench_schedulers

Both compute the same step (see tests/schedulers): 50 trailing steps, the one in the middle, noise from a generator.
"""

import torch
from diffusers import DDIMScheduler, DDPMScheduler

from diffusers_ext.schedulers.scheduling_gaussian_diffusion import ExactDDIMScheduler, ExactDDPMScheduler
from tests.benchmarks.timing import alternate


SHAPES = {(1, 3, 32, 32): 300, (16, 3, 32, 32): 100, (16, 3, 64, 64): 50}  # steps timed
PAIRS = {
    "DDPM": (DDPMScheduler, ExactDDPMScheduler, {}, {}),
    "DDPM, learned range": (DDPMScheduler, ExactDDPMScheduler, {"variance_type": "learned_range"}, {}),
    "DDIM": (DDIMScheduler, ExactDDIMScheduler, {}, {}),
    "DDIM, clipped output": (DDIMScheduler, ExactDDIMScheduler, {}, {"use_clipped_model_output": True}),
    "DDIM, eta 1": (DDIMScheduler, ExactDDIMScheduler, {}, {"eta": 1.0, "use_clipped_model_output": True}),
}
REPEATS = 10


def stepper(scheduler_class, config: dict, kwargs: dict, shape: tuple[int, ...]):
    """A function of `REPEATS` steps."""
    scheduler = scheduler_class(timestep_spacing="trailing", **config)
    scheduler.set_timesteps(50)
    timestep = scheduler.timesteps[25]
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(shape, generator=generator)
    channels = shape[1] * (2 if config else 1)
    output = torch.randn(shape[0], channels, *shape[2:], generator=generator)

    def steps():
        for _ in range(REPEATS):
            scheduler.step(output, timestep, sample, generator=generator, **kwargs)

    return steps


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'step':<24} {'sample':<16} {'diffusers':>12} {'ours':>12}")
    for shape, rounds in SHAPES.items():
        for name, (theirs, ours, config, kwargs) in PAIRS.items():
            functions = {
                "diffusers": stepper(theirs, config, kwargs, shape),
                "ours": stepper(ours, config, kwargs, shape),
            }
            medians = alternate(functions, rounds)
            times = "".join(f"{seconds / REPEATS * 1e6:9.0f} us " for seconds in medians.values())
            size = "x".join(map(str, shape))
            print(f"{name:<24} {size:<16} {times}  {medians['diffusers'] / medians['ours']:.2f}x")


if __name__ == "__main__":
    main()
