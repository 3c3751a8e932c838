"""Samplers: how near a few steps of each come to a trained network's own exact solution.

    python -m tests.benchmarks.bench_solvers outputs/digits

Prints the root mean square distance, in images of [0, 1], to 200 steps of Euler (flows) or DDIM from the same noise,
at guidance scales 1 and 2, and the number of network calls. `outputs/digits` comes from the README's first command.
"""

import argparse

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from diffusers_ext.pipelines import ClassConditionalPipeline


IMAGES = 100


def candidates(scheduler) -> tuple[object, dict]:
    """The exact solver, and {name: (scheduler, steps)}, for networks that the pipeline's scheduler fits."""
    own = {f"the pipeline's {type(scheduler).__name__}": scheduler}
    if scheduler.config.prediction_type == "flow_prediction":
        exact = FlowMatchEulerDiscreteScheduler()
        flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
        others = {
            "Heun": FlowMatchHeunDiscreteScheduler(),
            "DPM-Solver++ 2M": DPMSolverMultistepScheduler(**flow),
            "UniPC": UniPCMultistepScheduler(**flow),
        }
    else:
        config = {**scheduler.config, "timestep_spacing": "trailing", "clip_sample": False}
        exact = DDIMScheduler.from_config(config)
        others = {
            "DPM-Solver++ 2M": DPMSolverMultistepScheduler.from_config(scheduler.config),
            "UniPC": UniPCMultistepScheduler.from_config(scheduler.config),
        }
    rows = {f"{type(exact).__name__}, 20 steps": (exact, 20)}
    for name, other in {**own, **others}.items():
        rows |= {f"{name}, {steps} steps": (other, steps) for steps in (8, 10)}
    return exact, rows


def sample(pipe: ClassConditionalPipeline, scheduler, steps: int, scale: float, noise: torch.Tensor):
    """The images, and how often the network was called."""
    pipe.scheduler = scheduler
    labels = [index % len(pipe.config.id2label) for index in range(IMAGES)]
    images = pipe(labels, num_inference_steps=steps, guidance_scale=scale, latents=noise, output_type="pt").images
    return images, pipe.num_timesteps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pipeline", help="A trained class-conditional pipeline: a folder or a Hub name.")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    pipe = ClassConditionalPipeline.from_pretrained(arguments.pipeline)
    pipe.set_progress_bar_config(disable=True)
    size = pipe.unet.config.sample_size
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    generator = torch.Generator().manual_seed(arguments.seed)
    noise = torch.randn(IMAGES, pipe.unet.config.in_channels, height, width, generator=generator)

    exact, rows = candidates(pipe.scheduler)
    truths = {scale: sample(pipe, exact, 200, scale, noise)[0] for scale in (1.0, 2.0)}
    print(f"{'sampler':<50} calls  rms at scale 1  at scale 2")
    for name, (scheduler, steps) in rows.items():
        distances = []
        for scale, truth in truths.items():
            images, calls = sample(pipe, scheduler, steps, scale, noise)
            distances.append((images - truth).square().mean().sqrt().item())
        print(f"{name:<50} {calls:5}  {distances[0]:14.4f}  {distances[1]:10.4f}")


if __name__ == "__main__":
    main()
