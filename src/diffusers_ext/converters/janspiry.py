"""What the checkpoints of Janspiry's Palette and SR3 have in common: a prefix, and the buffers of a noise schedule."""

from collections.abc import Mapping

import torch

from diffusers_ext.converters.latents import part
from diffusers_ext.converters.layout import StateDict
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import ExactDDPMScheduler


NETWORK = "denoise_fn."
# Registered by Palette's Network.
PALETTE_BUFFERS = (
    "gammas",
    "sqrt_recip_gammas",
    "sqrt_recipm1_gammas",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
# Registered by SR3's GaussianDiffusion.
SR3_BUFFERS = (
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
)
BETA_SCHEDULES = {"linear": "linear", "quad": "scaled_linear", "cosine": "squaredcos_cap_v2"}
# The arguments of the originals' `make_beta_schedule`, by which the configurations name a schedule.
SCHEDULE = ("schedule", "n_timestep", "linear_start", "linear_end")


def network_tensors(state_dict: StateDict, buffers: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """The tensors of the network without their prefix, and all that is unknown."""
    unknown = {key: tensor for key, tensor in state_dict.items() if key not in buffers and not key.startswith(NETWORK)}
    return part(state_dict, NETWORK) | unknown


def ancestral_scheduler(state_dict: StateDict, schedule: Mapping) -> ExactDDPMScheduler:
    """The sampler of both: all the steps of a schedule, with the variance of the posterior.

    Args:
        state_dict (`Mapping`): the tensors of the checkpoint, whose buffers are those of the training's schedule.
        schedule (`Mapping`): another one, by the arguments `SCHEDULE`; empty for that of the training.

    Raises:
        ValueError: if the schedule is incomplete, wrong, or neither given nor in the checkpoint.
    """
    if schedule:
        return ExactDDPMScheduler(**_checked_schedule(schedule), variance_type="fixed_small")
    betas = _stored_betas(state_dict)
    if betas is None:
        raise ValueError(f"The checkpoint does not show its noise schedule: give {_listed_schedule()} as options.")
    return ExactDDPMScheduler(
        num_train_timesteps=len(betas), trained_betas=betas.tolist(), variance_type="fixed_small"
    )


def _checked_schedule(schedule: Mapping) -> dict:
    """In diffusers' words."""
    needed = SCHEDULE[:2] if schedule.get("schedule") == "cosine" else SCHEDULE
    missing = [name for name in needed if name not in schedule]
    if missing:
        raise ValueError(f"A noise schedule is {_listed_schedule()}, but `{missing[0]}` is not given.")
    if schedule["schedule"] not in list(BETA_SCHEDULES):  # which may be unhashable
        raise ValueError(
            f"`schedule` must be one of {', '.join(BETA_SCHEDULES)}, for others are not converted, but is "
            f"{schedule['schedule']!r}."
        )
    for name in needed[1:]:
        value, kind, described = schedule[name], (int, float), "number"
        if name == "n_timestep":
            kind, described = int, "integer"
        if isinstance(value, bool) or not isinstance(value, kind) or value <= 0:
            raise ValueError(f"`{name}` must be a positive {described}, but is {value!r}.")
    return {
        "beta_schedule": BETA_SCHEDULES[schedule["schedule"]],
        "num_train_timesteps": schedule["n_timestep"],
        "beta_start": schedule.get("linear_start"),
        "beta_end": schedule.get("linear_end"),
    }


def _listed_schedule() -> str:
    return f"{', '.join(f'`{name}`' for name in SCHEDULE[:-1])} and `{SCHEDULE[-1]}`"


def _stored_betas(state_dict: StateDict) -> torch.Tensor | None:
    """Those of the buffers, float64 of shape (T,)."""
    if "betas" in state_dict:
        return state_dict["betas"].double().flatten()
    if "sqrt_recipm1_gammas" not in state_dict:
        return None
    # Palette has no betas, and in its gammas near 1 a beta of 1e-6 is rounded off; not so in 1 / gamma - 1.
    ratio = state_dict["sqrt_recipm1_gammas"].double().flatten().square()
    return torch.diff(ratio, prepend=ratio.new_zeros(1)) / (1 + ratio)
