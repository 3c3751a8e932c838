"""What a network predicts and for which noise process, read from the scheduler that its pipeline was built with."""

import os
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin
from diffusers.utils.torch_utils import unwrap_module

from .checks import accepts
from .networks import get_shared_models


@dataclass(frozen=True)
class Process:
    """
    A noise process, and what a network predicts in it.

    Attributes:
        kind (`str`): `"EDM"`, `"flow"` or `"diffusion"`.
        prediction_type (`str`): as in the schedulers of diffusers; `"flow_prediction"` for the velocity of a flow.
        levels (`dict`): the options that define the noise levels.
        scheduler (`str`): the class of the scheduler that this was read from.
        alphas_cumprod (`list[float]`, *optional*): alpha_bar at timesteps of equal distance, where it is fixed.
    """

    kind: str
    prediction_type: str
    levels: dict[str, Any]
    scheduler: str
    alphas_cumprod: list[float] | None = None

    def __str__(self) -> str:
        options = {"prediction_type": self.prediction_type, **self.levels}
        options = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return f"{'EDM' if self.kind == 'EDM' else f'a {self.kind} process'} with {options}"


def read_process(scheduler: SchedulerMixin) -> Process | None:
    """The process of a scheduler; `None` if it can't be read from it."""

    def option(name: str, default: Any = None) -> Any:
        # A configuration keeps the options of other classes, so the signature decides.
        return scheduler.config.get(name, default) if accepts(type(scheduler).__init__, name) else default

    name = type(scheduler).__name__
    if option("sigma_data") is not None:
        return Process("EDM", option("prediction_type", "consistency"), {"sigma_data": option("sigma_data")}, name)
    levels = {"num_train_timesteps": option("num_train_timesteps")}
    if hasattr(scheduler, "scale_noise") or option("use_flow_sigmas", False):
        return Process("flow", option("prediction_type", "flow_prediction"), levels, name)
    if hasattr(scheduler, "add_noise"):
        return Process("diffusion", option("prediction_type", "epsilon"), levels, name, read_alphas(scheduler))
    return None


def read_saved_process(folder: str | os.PathLike, name: str, component: list[str | None]) -> Process | None:
    """The process of the scheduler `name` in a pipeline's folder; `None` without its class, or before its download."""
    library, class_name = component
    scheduler_class = getattr(sys.modules.get(library), class_name or "", None)
    if scheduler_class is None or not os.path.isdir(os.path.join(folder, name)):
        return None
    return read_process(scheduler_class.from_pretrained(folder, subfolder=name))


def read_alphas(scheduler: SchedulerMixin) -> list[float] | None:
    """Eleven values of the table of alpha_bar; `None` if there is no table, or if it was changed on purpose."""
    table = getattr(scheduler, "alphas_cumprod", None)
    if not torch.is_tensor(table) or scheduler.config.get("rescale_betas_zero_snr"):
        return None
    return table[torch.linspace(0, len(table) - 1, 11).round().long().to(table.device)].tolist()


class TrainedProcess:
    """
    The process that a network was trained for.

    Args:
        network ([`ModelMixin`]): the network.
        scheduler ([`SchedulerMixin`]): the scheduler of its pipeline, which has the process if none is given.
        process (`dict`, *optional*): the process as a pipeline was saved with it.
    """

    def __init__(self, network: ModelMixin, scheduler: SchedulerMixin, process: dict[str, Any] | None = None):
        self.network = unwrap_module(network)
        self.process = read_process(scheduler) if process is None else Process(**process)

    def of(self, network: ModelMixin, scheduler: SchedulerMixin) -> Process | None:
        """A network's process. A network that is not ours counts as trained for its scheduler's process."""
        return self.process if unwrap_module(network) is self.network else read_process(scheduler)

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
        given, trained = read_process(scheduler), self.of(network, scheduler)
        if given is None or trained is None:
            return
        same_levels = takes_any_levels or given.levels == trained.levels
        if (given.kind, given.prediction_type) != (trained.kind, trained.prediction_type) or not same_levels:
            raise ValueError(
                f"`{scheduler_name}` ({given.scheduler}) is for {given}, but {network_name} was trained for "
                f"{trained}: use the pipeline's own {trained.scheduler}, or {FITTING[trained.kind]}."
            )
        if not takes_any_levels and not has_same_noise(given, trained):
            raise ValueError(
                f"`{scheduler_name}` ({given.scheduler}) has another noise schedule than the pipeline's own "
                f"{trained.scheduler}, for which {network_name} was trained: build it by "
                f"`{given.scheduler}.from_config` from that scheduler's config."
            )


# Schedulers for each kind of process, as errors name them.
FITTING = {
    "EDM": "EDMEulerScheduler, EDMDPMSolverMultistepScheduler or EDMHeunScheduler of the same `sigma_data`",
    "flow": "FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler or a solver with `use_flow_sigmas=True`",
    "diffusion": "another diffusion scheduler, built by `from_config` from its config",
}


def has_same_noise(process: Process, other: Process) -> bool:
    """Whether two processes of one kind have the same noise at their timesteps, as far as it is known."""
    if process.alphas_cumprod is None or other.alphas_cumprod is None:
        return True
    one, two = torch.tensor(process.alphas_cumprod), torch.tensor(other.alphas_cumprod)
    return torch.allclose(one, two, rtol=1e-2, atol=1e-4)


class TrainedProcessMixin:
    """
    Lets a pipeline know what its networks were trained for, whatever schedulers it has later.

    The processes are saved in the configuration, because a saved pipeline can be loaded with another scheduler than
    its own. Where they are missing, they are read from the schedulers with which the pipeline is built.
    """

    def _remember_processes(self, schedulers: dict[str, str], trained_processes: dict[str, dict] | None):
        """Takes the processes of networks, saved or of their schedulers, given by names `{network: scheduler}`."""
        self._schedulers, saved = schedulers, trained_processes or {}
        self._trained_processes = {
            network: TrainedProcess(getattr(self, network), getattr(self, scheduler), saved.get(network))
            for network, scheduler in schedulers.items()
        }
        self._register_processes()

    def _take_processes(self, names: dict[str, str], pipeline: DiffusionPipeline):
        """Takes the processes of another pipeline, by names `{network: network there}`, where it has them."""
        there = getattr(pipeline, "_trained_processes", {})
        self._trained_processes |= {name: there[other] for name, other in names.items() if other in there}
        self._register_processes()

    def _register_processes(self):
        processes = {
            network: self._trained_processes[network].of(getattr(self, network), getattr(self, scheduler))
            for network, scheduler in self._schedulers.items()
            if getattr(self, network) is not None
        }
        known = {network: asdict(process) for network, process in processes.items() if process is not None}
        self.register_to_config(trained_processes=known)

    def save_config(self, *args, **kwargs):
        """As in diffusers, with the processes of the networks that the pipeline has now."""
        self._register_processes()
        super().save_config(*args, **kwargs)

    @classmethod
    def load_config(cls, pretrained_model_name_or_path, **kwargs):
        """As in diffusers. If the pipeline was saved without its processes, they are read from its own schedulers."""
        index, folder = super().load_config(pretrained_model_name_or_path, **kwargs), pretrained_model_name_or_path
        if isinstance(index, dict) and "trained_processes" not in index and os.path.isdir(folder):
            schedulers = {name: component for name, component in index.items() if name.startswith("scheduler")}
            read = {name: read_saved_process(folder, name, component) for name, component in schedulers.items()}
            index["trained_processes"] = {
                name.replace("scheduler", "unet"): asdict(process)
                for name, process in read.items()
                if process is not None
            }
        return index

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs):
        """As in diffusers, with all models of the pipeline that this class has a component for."""
        taken = super().from_pipe(pipeline, **{**get_shared_models(pipeline, cls), **kwargs})
        taken._take_processes({name: name for name in taken._trained_processes}, pipeline)
        return taken
