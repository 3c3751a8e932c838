"""Schedules of a call, and the noise levels that a network is given with them."""

import math
from typing import Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    SASolverScheduler,
    SchedulerMixin,
)

from .checks import accepts, check_positive_int, is_number


# What a network is given as the noise level: the scheduler's timestep, alpha_bar_t (Palette), or its root (SR3).
NOISE_CONDITIONINGS = ("timestep", "gamma", "sqrt_gamma")


def check_schedule(
    scheduler: SchedulerMixin,
    num_inference_steps: int | None = None,
    timesteps: list[int] | None = None,
    sigmas: list[float] | None = None,
    eta: float = 0.0,
):
    """Refuses steps that a scheduler cannot make: several schedules at once, or arguments that it does not have."""
    schedules = {"num_inference_steps": num_inference_steps, "timesteps": timesteps, "sigmas": sigmas}
    given = [name for name, value in schedules.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"Only one of `num_inference_steps`, `timesteps` and `sigmas` can be given, but {given} are.")
    if num_inference_steps is not None:
        check_positive_int("num_inference_steps", num_inference_steps)
    for name in given:
        if not accepts(scheduler.set_timesteps, name):
            raise ValueError(f"`{name}` cannot be given, because {type(scheduler).__name__} makes its own.")
    if not is_number(eta) or not 0 <= eta <= 1:
        raise ValueError(f"`eta` must be between 0 (DDIM) and 1 (DDPM), but is {eta!r}.")
    if eta != 0 and not accepts(scheduler.step, "eta"):
        raise ValueError(f"`eta` must be 0, because {type(scheduler).__name__} does not have it, but is {eta}.")


def set_timesteps(
    scheduler: SchedulerMixin,
    device: torch.device,
    default_num_inference_steps: int,
    num_inference_steps: int | None = None,
    timesteps: list[int] | None = None,
    sigmas: list[float] | None = None,
    strength: float = 1.0,
) -> torch.Tensor:
    """
    Prepares a scheduler for a call.

    Args:
        scheduler ([`SchedulerMixin`]): the scheduler, whose schedule is set.
        device (`torch.device`): where the timesteps are.
        default_num_inference_steps (`int`): the number of steps if no schedule is given.
        num_inference_steps, timesteps, sigmas (*optional*): the schedule, one of them at most.
        strength (`float`): the part of the steps that is made, the last ones, in `(0, 1]`.

    Returns:
        `torch.Tensor`: the timesteps of the call.
    """
    schedule = {"num_inference_steps": num_inference_steps, "timesteps": timesteps, "sigmas": sigmas}
    schedule = {name: value for name, value in schedule.items() if value is not None}
    scheduler.set_timesteps(device=device, **(schedule or {"num_inference_steps": default_num_inference_steps}))
    # A solver of second order visits two timesteps in a step.
    order = getattr(scheduler, "order", 1)
    num_steps = math.ceil(len(scheduler.timesteps) / order)
    begin = (num_steps - max(round(num_steps * strength), 1)) * order
    if hasattr(scheduler, "set_begin_index"):
        # Otherwise the scheduler looks up its first timestep, which waits for the device.
        scheduler.set_begin_index(begin)
    return scheduler.timesteps[begin:]


def can_add_noise(scheduler: SchedulerMixin) -> bool:
    """Whether a scheduler can add the noise of a timestep to images, as nearly all can."""
    return hasattr(scheduler, "add_noise") or hasattr(scheduler, "scale_noise")


def add_noise(
    scheduler: SchedulerMixin, images: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """Images with the noise of a timestep for each, `(N,)`, in the range of the scheduler's latents."""
    if hasattr(scheduler, "scale_noise"):  # flow matching
        return scheduler.scale_noise(images, timesteps, noise)
    return scheduler.add_noise(images, noise, timesteps)


def check_strength(strength: float, scheduler: SchedulerMixin):
    """Refuses a part of the steps, `strength`, that a scheduler cannot begin with noisy images."""
    if not is_number(strength) or not 0 < strength <= 1:
        raise ValueError(f"`strength` must be above 0 and at most 1, but is {strength!r}.")
    if strength < 1 and not can_add_noise(scheduler):
        raise ValueError(
            f"`strength` must be 1, because {type(scheduler).__name__} cannot add the noise of a later timestep."
        )


def get_step_arguments(scheduler: SchedulerMixin, **arguments: Any) -> dict[str, Any]:
    """Those of the arguments that the step of a scheduler has, such as `eta` and `generator`."""
    return {name: value for name, value in arguments.items() if accepts(scheduler.step, name)}


def scale_input(scheduler: SchedulerMixin, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """What a network sees of latents; a scheduler for flows has no such scaling."""
    if not hasattr(scheduler, "scale_model_input"):
        return latents
    return scheduler.scale_model_input(latents, timestep)


def reads_variance(scheduler: SchedulerMixin) -> bool:
    """Whether a scheduler's step wants the learned variance behind the prediction, as ancestral ones do."""
    # These solvers have the option only to drop what is behind the third channel.
    if isinstance(scheduler, (DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler, SASolverScheduler)):
        return False
    # A configuration keeps the options of other classes, so the signature decides.
    has_option = accepts(type(scheduler).__init__, "variance_type")
    return has_option and scheduler.config.variance_type in ("learned", "learned_range")


def is_flow(scheduler: SchedulerMixin) -> bool:
    """Whether a scheduler is for flow matching and has no alpha_bar."""
    # A solver can integrate flows, and has a table of alphas then that means nothing.
    return not hasattr(scheduler, "alphas_cumprod") or scheduler.config.get("use_flow_sigmas", False)


def check_noise_conditioning(noise_conditioning: str, scheduler: SchedulerMixin, network: str = "the network"):
    """Refuses a scheduler that does not have what the network is given as the noise level."""
    if noise_conditioning != "timestep" and is_flow(scheduler):
        raise ValueError(
            f"{type(scheduler).__name__} does not fit {network}, which is given {noise_conditioning!r}, the noise "
            "level of a diffusion process."
        )


def get_noise_levels(scheduler: SchedulerMixin, timesteps: torch.Tensor, noise_conditioning: str) -> torch.Tensor:
    """
    What a network is given as the noise level at each of the timesteps.

    Args:
        scheduler ([`SchedulerMixin`]): the scheduler, with `alphas_cumprod` for all but `"timestep"`.
        timesteps (`torch.Tensor` of shape `(T,)`): the timesteps; between integers, alpha_bar is interpolated.
        noise_conditioning (`str`): one of `NOISE_CONDITIONINGS`.

    Returns:
        `torch.Tensor` of shape `(T,)`.
    """
    if noise_conditioning == "timestep":
        return timesteps
    gammas = scheduler.alphas_cumprod.to(timesteps.device, torch.float32)
    timesteps = timesteps.float().clamp(0, len(gammas) - 1)
    lower, upper = gammas[timesteps.floor().long()], gammas[timesteps.ceil().long()]
    gamma = torch.lerp(lower, upper, timesteps.frac())
    return gamma if noise_conditioning == "gamma" else gamma.sqrt()
