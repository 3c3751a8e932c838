"""The U-Net of latent-diffusion, alone or in the checkpoint of a whole model."""

import torch
from diffusers import UNet2DModel

from diffusers_ext.converters.adm_arguments import ADM_ARGUMENTS, GUIDED_ARGUMENTS
from diffusers_ext.converters.adm_networks import convert_adm_unet
from diffusers_ext.converters.original_arguments import boolean, checked, class_count, one_of, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, listed, part


UNET = "model.diffusion_model."
FIRST_STAGE = "first_stage_model."
EMA = "model_ema."
# Registered by DDPM and LatentDiffusion; `betas` and `scale_factor` show what the configuration file said.
BUFFERS = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "logvar",
    "scale_factor",
)
LATENT_DIFFUSION = {
    **ADM_ARGUMENTS,
    "num_classes": class_count,
    "diffusion_steps": positive_integer,
    "rescale_timesteps": boolean,
    **GUIDED_ARGUMENTS,
    "use_spatial_transformer": one_of(False),
    "use_ema": boolean,
}


def convert_latent_diffusion(state_dict: StateDict, **config) -> UNet2DModel:
    r"""
    The unconditional `UNetModel` of https://github.com/CompVis/latent-diffusion (Rombach et al. 2022,
    https://huggingface.co/papers/2112.10752).

    Like [`convert_guided_diffusion`], but the state dict may also be that of the whole `LatentDiffusion`. Its averaged
    weights are used if it has them, unless `use_ema=False` is given.
    """
    config = checked(config, LATENT_DIFFUSION)
    return convert_adm_unet(unet_tensors(state_dict, config.get("use_ema")), config, can_be_superres=False)


def unet_tensors(state_dict: StateDict, use_ema: bool | None = None) -> dict[str, torch.Tensor]:
    """The tensors of the U-Net, and all that are unknown.

    Args:
        state_dict (`Mapping`): the tensors of a whole checkpoint, or of a U-Net alone.
        use_ema (`bool`, *optional*): whether to take the averaged weights; by default if there are any.

    Raises:
        ValueError: if `use_ema` is `True` and some tensors have no average.
    """
    if not any(key.startswith(UNET) for key in state_dict):
        if use_ema:
            raise ValueError("`use_ema` needs the checkpoint of a whole LatentDiffusion, but this is only a U-Net.")
        return dict(state_dict)
    others = (UNET, FIRST_STAGE, EMA)
    unknown = {key: tensor for key, tensor in state_dict.items() if not key.startswith(others) and key not in BUFFERS}
    unet = part(state_dict, UNET)
    averaged = part(state_dict, EMA)
    if use_ema is False or (use_ema is None and not averaged):
        return unet | unknown

    # The averages have the names of the wrapped network's parameters, without the dots.
    names = {key: "diffusion_model" + key.replace(".", "") for key in unet}
    missing = [EMA + name for name in names.values() if name not in averaged]
    if missing:
        raise ValueError(f"The checkpoint has no averages for {len(missing)} tensors: {listed(missing)}.")
    surplus = set(averaged) - set(names.values()) - {"decay", "num_updates"}
    return (
        {key: averaged[name] for key, name in names.items()}
        | {EMA + name: averaged[name] for name in sorted(surplus)}
        | unknown
    )
