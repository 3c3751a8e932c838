"""The parts of a whole latent-diffusion checkpoint."""

import torch

from diffusers_ext.converters.layout import StateDict
from diffusers_ext.converters.reading import listed


UNET = "model.diffusion_model."
FIRST_STAGE = "first_stage_model."
EMA = "model_ema."
# Registered by DDPM and LatentDiffusion; `betas` and `scale_factor` tell what the configuration file did.
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


def unet_tensors(state_dict: StateDict, use_ema: bool | None = None) -> dict[str, torch.Tensor]:
    """The tensors of the U-Net, averaged ones if there are and `use_ema` is not `False`, and all that is unknown.

    Raises:
        ValueError: if `use_ema` is `True` and some tensors have no average.
    """
    if not any(key.startswith(UNET) for key in state_dict):
        if use_ema:
            raise ValueError("`use_ema` is for the checkpoint of a whole LatentDiffusion, which this is not.")
        return dict(state_dict)
    others = (UNET, FIRST_STAGE, EMA)
    unknown = {key: tensor for key, tensor in state_dict.items() if not key.startswith(others) and key not in BUFFERS}
    unet = part(state_dict, UNET)
    averaged = part(state_dict, EMA)
    if use_ema is False or (use_ema is None and not averaged):
        return unet | unknown

    # The names of the averages are those of the wrapped network's parameters, without the dots.
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


def part(state_dict: StateDict, prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {key.removeprefix(prefix): tensor for key, tensor in state_dict.items() if key.startswith(prefix)}
