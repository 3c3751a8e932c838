"""The two parts of a checkpoint of Palette or SR3: the network under a prefix, and the buffers of a noise schedule."""

from collections.abc import Mapping

import numpy as np

from diffusers_ext.converters.original_arguments import one_of, positive_integer, positive_number
from diffusers_ext.converters.state_dicts import StateDict, part
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
# The arguments of the originals' `make_beta_schedule`, which describe a schedule in the configuration files.
SCHEDULE = {
    "schedule": one_of(*BETA_SCHEDULES),
    "n_timestep": positive_integer,
    "linear_start": positive_number,
    "linear_end": positive_number,
}
_SCHEDULE_NAMES = "`schedule`, `n_timestep`, `linear_start` and `linear_end`"


def network_tensors(state_dict: StateDict, buffers: tuple[str, ...]) -> StateDict:
    """The tensors of the network without their prefix, and all that are unknown."""
    unknown = {key: tensor for key, tensor in state_dict.items() if key not in buffers and not key.startswith(NETWORK)}
    return part(state_dict, NETWORK) | unknown


def ancestral_scheduler(state_dict: StateDict, schedule: Mapping) -> ExactDDPMScheduler:
    """The sampler of both repositories, which takes all steps of a schedule, with the variance of the posterior.

    Args:
        state_dict (`Mapping`): the tensors of the checkpoint, whose buffers hold the schedule of the training.
        schedule (`Mapping`): another schedule, by the arguments `SCHEDULE`; empty for the schedule of the training.

    Raises:
        ValueError: if the schedule is incomplete, or is neither given nor in the checkpoint.
    """
    if schedule:
        return ExactDDPMScheduler(**_schedule_config(schedule), variance_type="fixed_small")
    betas = _stored_betas(state_dict)
    if betas is None:
        raise ValueError(f"The checkpoint does not show its noise schedule: give {_SCHEDULE_NAMES} as options.")
    return ExactDDPMScheduler(
        num_train_timesteps=len(betas), trained_betas=betas.tolist(), variance_type="fixed_small"
    )


def _schedule_config(schedule: Mapping) -> dict:
    """The schedule by the names of diffusers' schedulers."""
    needed = ("schedule", "n_timestep") if schedule.get("schedule") == "cosine" else tuple(SCHEDULE)
    missing = [name for name in needed if name not in schedule]
    if missing:
        raise ValueError(f"A noise schedule needs {_SCHEDULE_NAMES}, but `{missing[0]}` is not given.")
    return {
        "beta_schedule": BETA_SCHEDULES[schedule["schedule"]],
        "num_train_timesteps": schedule["n_timestep"],
        "beta_start": schedule.get("linear_start"),
        "beta_end": schedule.get("linear_end"),
    }


def _stored_betas(state_dict: StateDict) -> np.ndarray | None:
    """The betas that the buffers show, in float64, of shape (T,).

    Raises:
        ValueError: if the buffers contradict each other.
    """
    if "betas" in state_dict:
        return _with_alpha_bar(_column(state_dict, "betas"), state_dict, "alphas_cumprod")
    if "sqrt_recipm1_gammas" not in state_dict:
        return None
    # Palette stores no betas, and a beta of 1e-6 is lost in the rounding of gammas near 1, but not in 1 / gamma - 1.
    ratio = np.square(_column(state_dict, "sqrt_recipm1_gammas"))
    return _with_alpha_bar(np.diff(ratio, prepend=0.0) / (1 + ratio), state_dict, "gammas")


def _column(state_dict: StateDict, buffer: str) -> np.ndarray:
    return state_dict[buffer].double().flatten().numpy()


def _with_alpha_bar(betas: np.ndarray, state_dict: StateDict, buffer: str) -> np.ndarray:
    """Betas that are equal to these up to their rounding, and whose products of 1 - beta are the stored alpha_bar."""
    if buffer not in state_dict:
        return betas
    alpha_bar = _column(state_dict, buffer)
    if alpha_bar.shape != betas.shape or not np.allclose(np.cumprod(1 - betas), alpha_bar, rtol=1e-4, atol=1e-7):
        raise ValueError(
            f"The noise schedule of the checkpoint contradicts itself: its betas do not multiply to its {buffer}. "
            f"Give {_SCHEDULE_NAMES} as options."
        )
    # Each product is kept among the numbers that float32 rounds to the stored one, almost up to half-way to the next.
    below, above = (np.nextafter(np.float32(alpha_bar), np.float32(end)).astype(float) for end in (0, 2))
    lowest, highest = alpha_bar + 0.49 * (below - alpha_bar), alpha_bar + 0.49 * (above - alpha_bar)
    betas, product = betas.copy(), 1.0
    for step in range(len(betas)):
        following = product * (1 - betas[step])
        bounded = min(max(following, lowest[step]), highest[step])
        betas[step] += (following - bounded) / product
        product = bounded
    return betas
