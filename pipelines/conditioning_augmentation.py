"""
Conditioning augmentation: Gaussian noise in the small images of a cascade (CDM: Ho et al. 2022, section 4,
https://huggingface.co/papers/2106.15282).

A small image x with noise of the level s, in [0, 1), is z_s = sqrt(1 - s**2) x + s noise. Super-resolvers are trained
with such images, so that they forgive the flaws of generated ones.
"""

import math

import torch
from diffusers import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor

from .checks import check_fraction
from .schedules import add_noise


def check_conditioning_noise(level: float, highest: float, network: str = "the network"):
    """Refuses a level s that is no fraction, or higher than what a network was trained for."""
    check_fraction("conditioning_noise_level", level)
    if level > highest:
        raise ValueError(
            f"`conditioning_noise_level` must be at most {highest}, what {network} was trained for, but is {level}."
        )


def add_conditioning_noise(
    small: torch.Tensor, level: float, generator: torch.Generator | list[torch.Generator] | None
) -> torch.Tensor:
    """Small images or films with noise of the level s."""
    noise = randn_tensor(small.shape, generator=generator, device=small.device, dtype=torch.float32)
    return (1 - level**2) ** 0.5 * small + level * noise


def get_signal_and_noise(scheduler: SchedulerMixin, timestep: torch.Tensor) -> tuple[float, float]:
    """`alpha` and `sigma` of a scheduler's latents `alpha * image + sigma * noise` at a timestep."""
    one, zero = torch.ones(1, 1, 1, 1, device=timestep.device), torch.zeros(1, 1, 1, 1, device=timestep.device)
    timesteps = timestep.reshape(1)
    return add_noise(scheduler, one, zero, timesteps).item(), add_noise(scheduler, zero, one, timesteps).item()


def to_noisy_image(
    latents: torch.Tensor, scheduler: SchedulerMixin, timestep: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """
    The noisy image that a sampler holds before a timestep, for truncated conditioning augmentation.

        z_s = latents / sqrt(alpha_t**2 + sigma_t**2),    s = sigma_t / sqrt(alpha_t**2 + sigma_t**2)

    Args:
        latents (`torch.Tensor`): `alpha_t * image + sigma_t * noise`.
        scheduler ([`SchedulerMixin`]): the scheduler, with `add_noise` or `scale_noise`.
        timestep (`torch.Tensor`): t.

    Returns:
        `tuple`: `z_s` and `s`.
    """
    alpha, sigma = get_signal_and_noise(scheduler, timestep)
    norm = math.hypot(alpha, sigma)
    return latents / norm, sigma / norm


def get_forward_step(level: float, wanted_level: float) -> tuple[float, float]:
    """
    How the diffusion process goes on from the noise level r = `level` to s = `wanted_level`.

        q(z_s | z_r) = N(kept * z_r, added**2),  kept**2 = (1 - s**2) / (1 - r**2),  added**2 = s**2 - (kept * r)**2

    Non-truncated conditioning augmentation starts from a finished image, r = 0: z_s = sqrt(1 - s**2) x + s noise. In
    the truncated one, r is the level at which the sampling of the small image was stopped.

    Returns:
        `tuple[float, float]`: `kept` and `added`.
    """
    kept = math.sqrt((1 - wanted_level**2) / (1 - level**2))
    return kept, math.sqrt(max(wanted_level**2 - (kept * level) ** 2, 0.0))
