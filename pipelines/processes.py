"""What a network predicts and for which noise process, read from the scheduler that its pipeline was built with."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ModelMixin, SchedulerMixin
from diffusers.utils.torch_utils import unwrap_module

from .checks import accepts


@dataclass(frozen=True)
class Process:
    """
    A noise process, and what a network predicts in it.

    Attributes:
        kind (`str`): `"EDM"`, `"flow"` or `"diffusion"`.
        prediction_type (`str`): as in the schedulers of diffusers; `"flow_prediction"` for the velocity of a flow.
        levels (`dict`): the options that define the noise levels.
    """

    kind: str
    prediction_type: str
    levels: dict[str, Any]

    def __str__(self) -> str:
        options = {"prediction_type": self.prediction_type, **self.levels}
        options = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return f"{'EDM' if self.kind == 'EDM' else f'a {self.kind} process'} with {options}"


def read_process(scheduler: SchedulerMixin) -> Process | None:
    """The process of a scheduler; `None` if it can't be read from it."""

    def option(name: str, default: Any = None) -> Any:
        # A configuration keeps the options of other classes, so the signature decides.
        return scheduler.config.get(name, default) if accepts(type(scheduler).__init__, name) else default

    if option("sigma_data") is not None:
        return Process("EDM", option("prediction_type", "consistency"), {"sigma_data": option("sigma_data")})
    num_train_timesteps = {"num_train_timesteps": option("num_train_timesteps")}
    if hasattr(scheduler, "scale_noise") or option("use_flow_sigmas", False):
        return Process("flow", option("prediction_type", "flow_prediction"), num_train_timesteps)
    if hasattr(scheduler, "add_noise"):
        return Process("diffusion", option("prediction_type", "epsilon"), num_train_timesteps)
    return None


class TrainedProcess:
    """The process that a network was trained for, read from the scheduler of its pipeline."""

    def __init__(self, network: ModelMixin, scheduler: SchedulerMixin):
        self.network, self.scheduler = unwrap_module(network), scheduler
        self.process = read_process(scheduler)

    def check(
        self,
        network: ModelMixin,
        scheduler: SchedulerMixin,
        takes_any_levels: bool = False,
        network_name: str = "the network",
        scheduler_name: str = "scheduler",
    ):
        """
        Refuses a scheduler for another process. A new network, and schedulers of unknown kinds, are not checked.

        Args:
            network ([`ModelMixin`]): the network of the call.
            scheduler ([`SchedulerMixin`]): the scheduler of the call.
            takes_any_levels (`bool`): whether the network's input is the noise level itself, so that every noise
                schedule is allowed.
            network_name, scheduler_name (`str`): their names in the error.
        """
        if scheduler is self.scheduler or unwrap_module(network) is not self.network:
            return
        given, trained = read_process(scheduler), self.process
        if given is None or trained is None:
            return
        own, new = type(self.scheduler).__name__, type(scheduler).__name__
        same_levels = takes_any_levels or given.levels == trained.levels
        if (given.kind, given.prediction_type) != (trained.kind, trained.prediction_type) or not same_levels:
            raise ValueError(
                f"`{scheduler_name}`, a {new}, is for {given}, but {network_name} was trained for {trained}: use the "
                f"pipeline's own {own}, or {FITTING[trained.kind]}."
            )
        if not takes_any_levels and not has_same_noise(scheduler, self.scheduler):
            raise ValueError(
                f"`{scheduler_name}`, a {new}, has another noise schedule than the pipeline's own {own}, for which "
                f"{network_name} was trained: build it by `{new}.from_config` from that scheduler's config."
            )


# With these options the table of alpha_bar is changed on purpose, or is not used.
FREE_NOISE = ("rescale_betas_zero_snr", "use_flow_sigmas")
# Schedulers for each kind of process, as errors name them.
FITTING = {
    "EDM": "EDMEulerScheduler, EDMDPMSolverMultistepScheduler or EDMHeunScheduler of the same `sigma_data`",
    "flow": "FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler or a solver with `use_flow_sigmas=True`",
    "diffusion": "another diffusion scheduler, built by `from_config` from its config",
}


def has_same_noise(scheduler: SchedulerMixin, other: SchedulerMixin) -> bool:
    """Whether two schedulers of one kind have the same noise at their timesteps, as far as their tables show it."""
    one, two = (getattr(each, "alphas_cumprod", None) for each in (scheduler, other))
    # Zero terminal SNR is an intended change, and flows have no such table.
    is_free = any(each.config.get(name) for each in (scheduler, other) for name in FREE_NOISE)
    if is_free or not (torch.is_tensor(one) and torch.is_tensor(two)):
        return True
    return len(one) == len(two) and torch.allclose(one.double().cpu(), two.double().cpu(), rtol=1e-2, atol=1e-4)
