"""How near the noise of a generator is to that of the images that it learns from."""

from collections.abc import Callable

import torch

from diffusers_ext.data import derive_seed
from diffusers_ext.metrics.noise import average_kl_divergence
from diffusers_ext.pixels import as_uint8
from diffusers_ext.training.loop.sampling import Generation
from diffusers_ext.training.restoration.one_pass import OnePassEvaluator


def noise_rows(evaluator: OnePassEvaluator, generate: Generation) -> list[dict]:
    """The AKLD of generated noise, and of Gaussian noise with the variance that the noise of each image has.

    Args:
        evaluator ([`OnePassEvaluator`]): has the noisy and the clean images.
        generate (`Generation`): has a pipeline with a `noise_generator`.
    """
    provenance = {"split": evaluator.split, "corruption_seed": evaluator.seed}
    return [
        {
            "task": task,
            "method": name,
            "akld": _akld(evaluator, task, name, add_noise),
            "provenance": provenance,
        }
        for task in evaluator.degraded.names
        for name, add_noise in (
            ("generated noise", lambda noisy, clean, draws: generated_noise(generate.pipeline, clean, draws)),
            ("Gaussian noise", lambda noisy, clean, draws: gaussian_noise(noisy, clean, draws)),
        )
    ]


def _akld(evaluator: OnePassEvaluator, task: str, name: str, add_noise: Callable) -> float:
    context, own, start = evaluator.context, [], 0
    for shown, truth in context.progress(evaluator.pairs(task, **context.share), f"{task}: {name}"):
        indices = range(start, start + len(shown))
        draws = [torch.Generator().manual_seed(derive_seed(evaluator.seed, "noise", index)) for index in indices]
        noisy, clean, start = shown / 2 + 0.5, truth / 2 + 0.5, indices.stop
        made = as_uint8(add_noise(noisy, clean, draws) * 2 - 1) / 255  # of 256 levels, as the real ones are
        own.append(average_kl_divergence(noisy, clean, made))
    return context.gather_rows(own).mean().item()


def generated_noise(pipeline, clean: torch.Tensor, draws: list[torch.Generator]) -> torch.Tensor:
    """Clean images with the noise of the pipeline's generator, in [0, 1], on the CPU."""
    return pipeline.add_noise(clean, generator=draws).cpu()


def gaussian_noise(noisy: torch.Tensor, clean: torch.Tensor, draws: list[torch.Generator]) -> torch.Tensor:
    """Clean images with white noise that has the mean variance of the noise in each, in [0, 1]."""
    deviations = (noisy - clean).flatten(1).std(dim=1).view(-1, 1, 1, 1)
    noise = torch.stack([torch.randn(clean.shape[1:], generator=draw) for draw in draws])
    return (clean + deviations * noise).clamp(0, 1)
