"""The pipelines around latent diffusion models that see an image or a label map beside the noisy latents."""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DModel, VQModel

from diffusers_ext.models.modeling_spatial_rescaler import SpatialRescaler
from diffusers_ext.pipelines import PalettePipeline


# What a PalettePipeline shows a network, by the original's name of the condition.
RESTORERS = {
    "masked_image": {"tasks": ["inpainting"], "conditioning_fill": "black"},
    "LR_image": {"tasks": ["super_resolution"], "conditioning_encoding": "resized"},
}


def restorer(
    unet: UNet2DModel, scheduler: DDIMScheduler, vae: VQModel | AutoencoderKL, cond_stage_key: str
) -> PalettePipeline:
    """The pipeline of a model for inpainting or super-resolution.

    For super-resolution the pipeline enlarges the small image and resizes it back to the latents, which blurs details
    of single pixels that the original's network sees.

    Args:
        cond_stage_key (`str`): a key of `RESTORERS`.

    Raises:
        ValueError: if the network does not take such a condition, or takes latents of another scale than it makes.
    """
    arguments = RESTORERS[cond_stage_key]
    is_encoded = cond_stage_key == "masked_image"
    latent_channels = unet.config.out_channels
    expected = latent_channels + (latent_channels + 1 if is_encoded else vae.config.in_channels)
    if unet.config.in_channels != expected:
        raise ValueError(
            f"`cond_stage_key` is {cond_stage_key}, for which the U-Net needs {expected} input channels, but it has "
            f"{unet.config.in_channels}."
        )
    if is_encoded and vae.config.scaling_factor != 1:
        raise ValueError("The latents of a masked image are not scaled in the original: `scale_factor` must be 1.")
    put_latents_last(unet)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    scale = {} if is_encoded else {"default_scale_factor": float(factor)}
    return PalettePipeline(unet, scheduler, vae=vae, **arguments, **scale)


def semantic_synthesis(
    unet: UNet2DModel, scheduler: DDIMScheduler, vae: VQModel | AutoencoderKL, conditioner: SpatialRescaler
) -> PalettePipeline:
    """The pipeline of a model that makes images of label maps.

    Raises:
        ValueError: if the maps become smaller or larger than the latents.
    """
    stages = len(vae.config.block_out_channels) - 1
    if conditioner.config.num_stages != stages:
        raise ValueError(
            f"`n_stages` is {conditioner.config.num_stages}, but the first stage halves images {stages} times."
        )
    put_latents_last(unet)
    return PalettePipeline(
        unet, scheduler, vae=vae, conditioner=conditioner, tasks=["translation"], conditioning_encoding="labels"
    )


def put_latents_last(unet: UNet2DModel) -> None:
    """Reorder the first convolution: the original's network sees the noisy latents first, and the pipeline's last."""
    channels, weight = unet.config.out_channels, unet.conv_in.weight.detach()
    unet.conv_in.weight = torch.nn.Parameter(torch.cat([weight[:, channels:], weight[:, :channels]], dim=1))
