"""Images with the noise of a given diffusion model, for networks that guide it."""

import math

import torch
from diffusers import SchedulerMixin

from diffusers_ext.losses import noise_levels
from diffusers_ext.training.diffusion.objectives import prediction_type


def noised_images(
    clean: torch.Tensor, level: torch.Tensor, noise: torch.Tensor, scheduler: SchedulerMixin
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, C, H, W) as the denoiser of a scheduler sees them, and their timesteps (N,).

    Args:
        clean, noise (`torch.Tensor` of shape (N, C, H, W)): images in [-1, 1], and noise of unit variance.
        level (`torch.Tensor` of shape (N,)): how far the process is, in [0, 1); 0 is the least noise.
        scheduler (`SchedulerMixin`): the process.
    """
    timesteps = timesteps_at(level, scheduler)
    alpha, sigma = noise_levels(scheduler, timesteps)
    return alpha * clean + sigma * noise, timesteps


def timesteps_at(level: torch.Tensor, scheduler: SchedulerMixin) -> torch.Tensor:
    """The `timesteps` argument (N,) of a denoiser at levels (N,) in [0, 1) of its process; 0 is the least noise."""
    config = scheduler.config
    if "sigma_data" in config:  # EDM's networks get log(sigma) / 4
        least, most = math.log(config.sigma_min) / 4, math.log(config.sigma_max) / 4
        return least + (most - least) * level
    timesteps = level * config.num_train_timesteps
    return timesteps if prediction_type(scheduler) == "flow_prediction" else timesteps.long()
