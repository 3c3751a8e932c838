"""Comparing samplers of one diffusion model: schedulers by name, and numbers of steps."""

import inspect
import itertools
from collections.abc import Callable, Sequence

import diffusers
from diffusers import ConfigMixin, SchedulerMixin

import diffusers_ext
from diffusers_ext.training.loop.sampling import Generation


def compare_samplers(
    measure: Callable[[Generation, int], list[dict]],
    generate: Generation,
    schedulers: Sequence[str] = (),
    num_inference_steps: Sequence[int] = (),
) -> list[dict]:
    """The rows of `measure(generate, steps)` for each scheduler and number of steps.

    Args:
        measure (`Callable`): measures the pipeline of a [`Generation`] with a number of steps.
        generate (`Generation`): has the pipeline, which gets its own scheduler back at the end.
        schedulers (`Sequence[str]`): names, see [`build_scheduler`]; by default the pipeline's own scheduler.
        num_inference_steps (`Sequence[int]`): by default the pipeline's own number.

    Raises:
        ValueError, ImportError: if a scheduler can't be used, or does not take a number of steps.
    """
    pipeline = generate.pipeline
    own = pipeline.scheduler
    candidates = [build_scheduler(name, own.config) for name in schedulers] or [own]
    settings = list(
        itertools.product(candidates, num_inference_steps or [pipeline.config.default_num_inference_steps])
    )
    for scheduler, steps in settings:
        scheduler.set_timesteps(steps)  # a number of steps that a scheduler refuses is found before the first sample
    rows = []
    for scheduler, steps in settings:
        pipeline.scheduler = scheduler
        rows += measure(generate, steps)
    pipeline.scheduler = own
    return rows


def build_scheduler(name: str, config: dict) -> SchedulerMixin:
    """A scheduler of the class `name` of diffusers or diffusers_ext, for the process in another scheduler's config.

    Raises:
        ValueError: if there is no such class, or it does not sample images.
        ImportError: if it needs a package that is not installed.
    """
    scheduler_class = getattr(diffusers_ext, name, None) or getattr(diffusers, name, None)
    if hasattr(scheduler_class, "_backends"):  # diffusers' placeholder for a class whose package is missing
        return scheduler_class.from_config(config)  # raises an error that names the package
    is_scheduler = isinstance(scheduler_class, type) and issubclass(scheduler_class, SchedulerMixin)
    if not is_scheduler or not issubclass(scheduler_class, ConfigMixin):
        raise ValueError(f"--schedulers: neither diffusers nor diffusers_ext has a scheduler {name}.")
    parameters = list(inspect.signature(scheduler_class.__init__).parameters.values())[1:]
    if any(parameter.default is inspect.Parameter.empty for parameter in parameters):
        raise ValueError(f"--schedulers: {name} does not sample pixels.")
    return scheduler_class.from_config(config)
