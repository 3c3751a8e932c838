"""The processes that text-to-image bases were trained in, and go on being trained in."""

import torch

from diffusers_ext.schedulers import ExactDDPMScheduler
from diffusers_ext.training.diffusion.objectives import Objective


class LatentDiffusion(Objective):
    """The process of a base with discrete noise levels, predicting epsilon, v or the sample."""

    def __init__(self, config, scheduler):
        super().__init__(config, ExactDDPMScheduler.from_config(scheduler.config, variance_type="fixed_small"))

    def identity(self) -> dict:
        return {"prediction_type": self.config.prediction_type}

    def draw_timesteps(self, draw) -> torch.Tensor:
        # A sigmoid can round up to 1.
        return super().draw_timesteps(draw).long().clamp(max=self.config.num_train_timesteps - 1)


class LatentFlow(Objective):
    """A rectified flow whose noise levels are shifted towards noise, by as much as its sampler's (SD3, eq. 23)."""

    def identity(self) -> dict:
        return {"prediction_type": self.config.prediction_type}

    def draw_timesteps(self, draw) -> torch.Tensor:
        sigmas = super().draw_timesteps(draw) / self.config.num_train_timesteps
        if not self.scheduler.config.use_dynamic_shifting:
            shift = self.scheduler.config.shift
            sigmas = shift * sigmas / (1 + (shift - 1) * sigmas)
        return sigmas * self.config.num_train_timesteps
