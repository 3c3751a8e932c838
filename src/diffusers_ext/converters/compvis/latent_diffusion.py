"""The pipeline around a whole latent-diffusion checkpoint."""

import torch
from diffusers import DDIMScheduler, LDMPipeline

from diffusers_ext.converters.compvis.first_stage import convert_first_stage
from diffusers_ext.converters.compvis.latent_unet import FIRST_STAGE, convert_latent_diffusion
from diffusers_ext.converters.family import Saveable
from diffusers_ext.converters.original_arguments import positive_integer, positive_number, require
from diffusers_ext.converters.state_dicts import StateDict, part


# The original's arguments that set the diffusion process.
PROCESS = {"timesteps": positive_integer, "linear_start": positive_number, "linear_end": positive_number}


def latent_diffusion(state_dict: StateDict, options: dict) -> dict[str, Saveable]:
    """An `LDMPipeline`, or without a first stage the U-Net and the scheduler.

    Args:
        state_dict (`Mapping`): the tensors of the original.
        options (`dict`): arguments of [`convert_latent_diffusion`] and of the `PROCESS`.
    """
    process = {name: options.pop(name) for name in PROCESS if name in options}
    unet = convert_latent_diffusion(state_dict, **options)
    scheduler = latent_scheduler(state_dict, process)
    require(options, "image_size")
    first_stage = part(state_dict, FIRST_STAGE)
    if not first_stage:
        return {"unet": unet, "scheduler": scheduler}
    factor = float(state_dict["scale_factor"]) if "scale_factor" in state_dict else 1.0
    vqvae = convert_first_stage(first_stage, scaling_factor=factor)
    vqvae.register_to_config(sample_size=options["image_size"] * 2 ** (len(vqvae.config.block_out_channels) - 1))
    return {"": LDMPipeline(vqvae=vqvae, unet=unet, scheduler=scheduler)}


def latent_scheduler(state_dict: StateDict, process: dict) -> DDIMScheduler:
    """The diffusion process of latent-diffusion.

    The square roots of its betas grow linearly from that of `linear_start` to that of `linear_end`, in `timesteps`
    steps. The betas in the checkpoint show these three, if it has any.

    Raises:
        ValueError: if one of the three is missing, or contradicts the checkpoint.
    """
    betas = state_dict.get("betas")
    if betas is not None:
        read = {"timesteps": len(betas), "linear_start": float(betas[0]), "linear_end": float(betas[-1])}
        for name, value in read.items():
            if abs(process.setdefault(name, value) - value) > 1e-6:
                raise ValueError(f"`{name}` is given as {process[name]}, but the checkpoint has {value:g}.")
    require(process, "timesteps", "linear_start", "linear_end")
    scheduler = DDIMScheduler(
        num_train_timesteps=process["timesteps"],
        beta_start=process["linear_start"],
        beta_end=process["linear_end"],
        beta_schedule="scaled_linear",
        clip_sample=False,
        # the original's DDIM visits the timesteps 1, 1 + T / n, ..., and ends at the first training step's alpha_bar
        set_alpha_to_one=False,
        steps_offset=1,
    )
    if betas is not None and not torch.allclose(scheduler.betas, betas.float(), rtol=1e-4, atol=1e-7):
        raise ValueError("The checkpoint's betas do not follow latent-diffusion's schedule, which is not converted.")
    return scheduler
