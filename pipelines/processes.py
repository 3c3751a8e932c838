"""What a network predicts, and in which process, by the scheduler that its pipeline was made with."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ModelMixin, SchedulerMixin
from diffusers.utils.torch_utils import unwrap_module

from .checks import accepts


@dataclass(frozen=True)
class Process:
    """
    A kind of process with the prediction of a network in it.

    Attributes:
        kind (`str`): `"EDM"`, `"flow"` or `"diffusion"`.
        prediction_type (`str`): as in the schedulers of diffusers; `"flow_prediction"` for the velocity of a flow.
        levels (`dict`): the options that the noise levels of the network depend on.
    """

    kind: str
    prediction_type: str
    levels: dict[str, Any]

    def __str__(self) -> str:
        options = {"prediction_type": self.prediction_type, **self.levels}
        options = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return f"{'EDM' if self.kind == 'EDM' else f'a {self.kind} process'} with {options}"


def read_process(scheduler: SchedulerMixin) -> Process | None:
    """The process of a scheduler; `None` if it does not tell."""

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
    """The process that a network was trained in: that of the scheduler that it came with."""

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
        Refuses a scheduler for another process. Nothing is known of another network, or of unknown schedulers.

        Args:
            network ([`ModelMixin`]): the network of the call.
            scheduler ([`SchedulerMixin`]): the scheduler of the call.
            takes_any_levels (`bool`): whether the network is told the noise levels themselves, so that the noise
                schedule may be another one.
            network_name, scheduler_name (`str`): what the error calls them.
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
                f"`{scheduler_name}`, a {new}, is for {given}, but {network_name} was trained for {trained}: pass a "
                f"scheduler for that, such as the {own} that it came with, or {FITTING[trained.kind]}."
            )
        if not takes_any_levels and not has_same_noise(scheduler, self.scheduler):
            raise ValueError(
                f"`{scheduler_name}`, a {new}, has another noise schedule than the {own} that {network_name} came "
                f"with: make it by `{new}.from_config`, with the configuration of that {own}."
            )


# Options that change the table of alpha_bar, or leave it without meaning
FREE_NOISE = ("rescale_betas_zero_snr", "use_flow_sigmas")
# Schedulers for the kinds of processes, for errors
FITTING = {
    "EDM": "EDMEulerScheduler, EDMDPMSolverMultistepScheduler or EDMHeunScheduler of the same `sigma_data`",
    "flow": "FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler or a solver with `use_flow_sigmas=True`",
    "diffusion": "what `from_config` of another diffusion scheduler's class makes of its configuration",
}


def has_same_noise(scheduler: SchedulerMixin, other: SchedulerMixin) -> bool:
    """Whether two schedulers of a kind give their timesteps the same noise, as far as they tell."""
    one, two = (getattr(each, "alphas_cumprod", None) for each in (scheduler, other))
    # Zero terminal SNR is chosen on purpose for networks that were trained without it, and flows have no such table.
    is_free = any(each.config.get(name) for each in (scheduler, other) for name in FREE_NOISE)
    if is_free or not (torch.is_tensor(one) and torch.is_tensor(two)):
        return True
    return len(one) == len(two) and torch.allclose(one.double().cpu(), two.double().cpu(), rtol=1e-2, atol=1e-4)
