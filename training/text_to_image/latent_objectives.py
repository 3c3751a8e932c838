"""The noise processes of text-to-image bases, in which training continues."""

import torch

from diffusers_ext.schedulers import ExactDDPMScheduler
from diffusers_ext.training.diffusion.objectives import Objective


class LatentDiffusion(Objective):
    """The process of a base with discrete noise levels, which predicts epsilon, v or the sample.

    Args:
        scheduler ([`SchedulerMixin`]): of the base's pipeline.
        options: see [`Objective`].
    """

    def __init__(self, scheduler, **options):
        super().__init__(ExactDDPMScheduler.from_config(scheduler.config, variance_type="fixed_small"), **options)

    def identity(self) -> dict:
        return {"prediction_type": self.prediction_type}

    def draw_timesteps(self, draw) -> torch.Tensor:
        # A sigmoid can round up to 1.
        return super().draw_timesteps(draw).long().clamp(max=self.num_train_timesteps - 1)


class LatentFlow(Objective):
    """A rectified flow whose noise levels are shifted towards noise, like its sampler's (SD3, eq. 23)."""

    def identity(self) -> dict:
        return {"prediction_type": self.prediction_type}

    def draw_timesteps(self, draw) -> torch.Tensor:
        sigmas = super().draw_timesteps(draw) / self.num_train_timesteps
        if not self.scheduler.config.use_dynamic_shifting:
            shift = self.scheduler.config.shift
            sigmas = shift * sigmas / (1 + (shift - 1) * sigmas)
        return sigmas * self.num_train_timesteps
