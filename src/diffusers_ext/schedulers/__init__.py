from diffusers_ext.registration import register
from diffusers_ext.schedulers.scheduling_edm_heun import EDMHeunScheduler
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import (
    ExactDDIMInverseScheduler,
    ExactDDIMScheduler,
    ExactDDPMScheduler,
    space_timesteps,
)


register()

__all__ = [
    "EDMHeunScheduler",
    "ExactDDIMInverseScheduler",
    "ExactDDIMScheduler",
    "ExactDDPMScheduler",
    "space_timesteps",
]
