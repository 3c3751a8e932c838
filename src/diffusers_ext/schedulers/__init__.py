"""Schedulers that Diffusers does not have: one file each, `scheduling_<name>.py`."""

from diffusers_ext.registration import register
from diffusers_ext.schedulers.scheduling_edm_heun import EDMHeunScheduler as EDMHeunScheduler
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import (
    ExactDDIMInverseScheduler as ExactDDIMInverseScheduler,
    ExactDDIMScheduler as ExactDDIMScheduler,
    ExactDDPMScheduler as ExactDDPMScheduler,
    space_timesteps as space_timesteps,
)
from diffusers_ext.schedulers.scheduling_halton import HaltonScheduler as HaltonScheduler
from diffusers_ext.schedulers.scheduling_langevin import LangevinScheduler as LangevinScheduler
from diffusers_ext.schedulers.scheduling_maskgit import MaskGITScheduler as MaskGITScheduler


register()
