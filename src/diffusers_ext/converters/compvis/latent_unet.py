"""The U-Net of latent-diffusion, alone or in the checkpoint of a whole model."""

import torch
from diffusers import UNet2DConditionModel, UNet2DModel

from diffusers_ext.converters.adm_arguments import ADM_ARGUMENTS, GUIDED_ARGUMENTS
from diffusers_ext.converters.adm_networks import convert_adm_unet
from diffusers_ext.converters.compvis.attended_unet import convert_attended_unet, has_cross_attention
from diffusers_ext.converters.original_arguments import (
    boolean,
    check_agreement,
    checked,
    class_count,
    positive_integer,
)
from diffusers_ext.converters.state_dicts import StateDict, listed, part


UNET = "model.diffusion_model."
FIRST_STAGE = "first_stage_model."
COND_STAGE = "cond_stage_model."
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


def context_size(name: str, value) -> int | None:
    """None is for networks without cross-attention."""
    return value if value is None else positive_integer(name, value)


LATENT_DIFFUSION = {
    **ADM_ARGUMENTS,
    "num_classes": class_count,
    "diffusion_steps": positive_integer,
    "rescale_timesteps": boolean,
    **GUIDED_ARGUMENTS,
    "use_spatial_transformer": boolean,
    "transformer_depth": positive_integer,
    "context_dim": context_size,
    "legacy": boolean,  # by which the original splits heads; has no effect on what is converted
    "use_ema": boolean,
}


def convert_latent_diffusion(state_dict: StateDict, **config) -> UNet2DModel | UNet2DConditionModel:
    r"""
    The `UNetModel` of https://github.com/CompVis/latent-diffusion (Rombach et al. 2022,
    https://huggingface.co/papers/2112.10752), unconditional or with a condition: concatenated to the latents, added
    to the embedding of the timestep (`num_classes`), or attended to (`use_spatial_transformer`).

    Like [`convert_guided_diffusion`], but the state dict may also be that of the whole `LatentDiffusion`. Its averaged
    weights are used if it has them, unless `use_ema=False` is given. A network with cross-attention becomes a
    [`UNet2DConditionModel`], whose `encoder_hidden_states` `(N, L, context_dim)` are the condition.
    """
    config = checked(config, LATENT_DIFFUSION)
    tensors = unet_tensors(state_dict, config.get("use_ema"))
    if has_cross_attention(tensors):
        return convert_attended_unet(tensors, config)
    check_agreement(config, config, {"use_spatial_transformer": False, "context_dim": None})
    return convert_adm_unet(tensors, config, can_be_superres=False)


def unet_tensors(state_dict: StateDict, use_ema: bool | None = None) -> dict[str, torch.Tensor]:
    """The tensors of the U-Net, and all that belong neither to it nor to the stages before it.

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
    others = (UNET, FIRST_STAGE, COND_STAGE, EMA)
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
