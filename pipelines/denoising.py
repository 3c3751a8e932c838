"""A step of a diffusion pipeline: the guider, the guided prediction of the network, and the callback."""

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from diffusers import (
    BaseGuidance,
    ClassifierFreeGuidance,
    DiffusionPipeline,
    ModelMixin,
    SchedulerMixin,
)
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.utils.torch_utils import randn_tensor, unwrap_module

from .checks import accepts, check_number
from .schedules import get_step_arguments, reads_variance, scale_input


# The function of `callback_on_step_end`: (pipeline, step, timestep, tensors by name) to a dict with new tensors.
StepCallback = Callable[[DiffusionPipeline, int, torch.Tensor, dict], dict] | PipelineCallback | MultiPipelineCallbacks


@contextmanager
def quiet_guiders() -> Iterator[None]:
    """Silences the warning of every new guider that guiders are experimental, for users who did not choose one."""
    logger = logging.getLogger("diffusers.guiders.guider_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def check_needs_no_classifier(guider: BaseGuidance | None):
    """Refuses a guider for classifier guidance, for pipelines that have no classifier."""
    if hasattr(guider, "guide"):
        raise ValueError(f"{type(guider).__name__} needs a classifier, which this pipeline does not have.")


def check_guidance_scale(guidance_scale: float | None, guider: BaseGuidance | None, name: str = "guider"):
    """Refuses a `guidance_scale` that is no number, or that the guider, the pipeline's component `name`, lacks."""
    if guidance_scale is None:
        return
    check_number("guidance_scale", guidance_scale)
    if guider is not None and "guidance_scale" not in guider.config:
        raise ValueError(f"`guidance_scale` is no parameter of the pipeline's `{name}` ({type(guider).__name__}).")


def build_guider(guider: BaseGuidance | None, guidance_scale: float | None) -> BaseGuidance:
    """
    The guider of a call.

    It is the pipeline's, with another scale if `guidance_scale` is given. A pipeline without guider has
    classifier-free guidance of this scale, by default 1, which is the conditional prediction alone.
    """
    if guider is not None and guidance_scale is None:
        return guider
    with quiet_guiders():
        if guider is not None:
            return guider.new(guidance_scale=guidance_scale)
        return ClassifierFreeGuidance(guidance_scale=1.0 if guidance_scale is None else guidance_scale)


def get_guidance_scale(guider: BaseGuidance) -> float:
    """The scale of a guider; 1, which is no guidance, for one without."""
    return guider.config.get("guidance_scale", 1.0)


def follow_guidance_scale(guider: BaseGuidance, guidance_scale: float) -> BaseGuidance:
    """
    The guider of the next step, after a callback may have set `pipe._guidance_scale`.

    As in diffusers, 0 turns guidance off, which is a scale of 1 for all but guidance by a gradient. What the guider
    remembers of other steps stays.
    """
    if guidance_scale == get_guidance_scale(guider):
        return guider
    check_guidance_scale(guidance_scale, guider)
    if guidance_scale == 0 and not hasattr(guider, "condition_gradient"):
        guidance_scale = 1.0
    guider = copy.copy(guider)
    guider.register_to_config(guidance_scale=guidance_scale)
    guider.guidance_scale = guidance_scale
    return guider


def check_null_label(guider: BaseGuidance, timesteps: Iterable[torch.Tensor | None]):
    """
    Refuses a guider that wants unconditional predictions, for a pipeline without `null_class_label`.

    What a guider wants can depend on the step, so it is asked for all steps.
    """
    timesteps = list(timesteps)
    for i, t in enumerate(timesteps):
        guider.set_state(step=i, num_inference_steps=len(timesteps), timestep=t)
        batches = guider.prepare_inputs({"class_labels": (True, None)})
        if any(batch.class_labels is None for batch in batches):
            raise ValueError(
                "Guidance needs predictions without class, but the pipeline has no `null_class_label` for them."
            )


def run_network(
    network: ModelMixin, sample: torch.Tensor, noise_level: torch.Tensor, dtype: torch.dtype, **conditions: Any
) -> torch.Tensor:
    """
    The output of a denoiser for one noise level.

    Args:
        network ([`ModelMixin`]): the denoiser.
        sample (`torch.Tensor` of shape `(N, C, H, W)`): float32.
        noise_level (`torch.Tensor`): a single number, the timestep or what the network is given instead.
        dtype (`torch.dtype`): the network's dtype. Asking for it in each step would be slow, because the property
            walks through all modules.
        conditions: other arguments of the network, such as `class_labels`.

    Returns:
        `torch.Tensor` of shape `(N, C, H, W)` or `(N, 2C, H, W)`: float32.
    """
    noise_levels = noise_level.expand(len(sample))
    return network(sample.to(dtype), noise_levels, return_dict=False, **conditions)[0].float()


def predict(
    guider: BaseGuidance,
    network: ModelMixin,
    forward: Callable[..., torch.Tensor],
    inputs: dict[str, torch.Tensor | tuple],
    channels: int,
    with_variance: bool,
) -> torch.Tensor:
    """
    The guided prediction of a step.

    The predictions that the guider asks for share one forward pass, unless it changes the network between them.

    Args:
        guider ([`BaseGuidance`]): the guider, in the state of the step.
        network ([`ModelMixin`]): the network that the guider may change.
        forward (`Callable`): runs the network: has the names of `inputs` for arguments, each a tensor for the whole
            batch or `None`, and returns float32 `(n, C, H, W)` or `(n, 2C, H, W)`.
        inputs (`dict`): by name a tensor for all predictions, or a tuple of what the conditional and the unconditional
            prediction see, either of which may be `None`. `sample` is the noisy image `(N, C, H, W)`.
        channels (`int`): C, the channels of an image.
        with_variance (`bool`): whether to append the learned variance.

    Returns:
        `torch.Tensor` of shape `(N, C, H, W)`, or `(N, 2C, H, W)` with the variance, which guidance leaves alone: it
        is that of the conditional prediction.
    """
    batches = guider.prepare_inputs(inputs)

    def run(batches):
        values = {name: [getattr(batch, name) for batch in batches] for name in inputs}
        return forward(**{name: None if value[0] is None else torch.cat(value) for name, value in values.items()})

    if type(guider).prepare_models is BaseGuidance.prepare_models:
        outputs = run(batches).chunk(len(batches))
    else:
        # Guiders find layers by the names that they had before compilation.
        outputs, layers = [], unwrap_module(network)
        for batch in batches:
            try:
                guider.prepare_models(layers)
                outputs.append(run([batch]))
            finally:
                guider.cleanup_models(layers)

    for batch, output in zip(batches, outputs, strict=True):
        batch.noise_pred = output[:, :channels]
    noise_pred = guider(batches)[0]
    # The conditional prediction is the first one of every guider.
    return torch.cat([noise_pred, outputs[0][:, channels:]], dim=1) if with_variance else noise_pred


def get_callback_inputs(callback: StepCallback | None, names: Sequence[str]) -> Sequence[str]:
    """The names of the tensors that a callback sees: its own list, or else the names given in the call."""
    return callback.tensor_inputs if isinstance(callback, (PipelineCallback, MultiPipelineCallbacks)) else names


def call_back(
    pipeline: DiffusionPipeline,
    callback: StepCallback | None,
    names: Sequence[str],
    step: int,
    timestep: torch.Tensor,
    tensors: dict[str, torch.Tensor],
) -> torch.Tensor:
    """The latents after a step: the ones in `tensors`, unless a callback, which sees `names`, returns others."""
    if callback is None:
        return tensors["latents"]
    outputs = callback(pipeline, step, timestep, {name: tensors[name] for name in names})
    return tensors["latents"] if outputs is None else outputs.pop("latents", tensors["latents"])


class DenoisingCallMixin:
    """What a call of a pipeline tells its callbacks, and lets them change."""

    _interrupt = False
    _guidance_scale = 1.0
    _num_timesteps = 0

    @property
    def interrupt(self) -> bool:
        """A callback that sets `pipe._interrupt = True` makes the step the last one."""
        return self._interrupt

    @property
    def guidance_scale(self) -> float:
        """The guidance scale of the call. A callback that sets `pipe._guidance_scale` changes the next steps."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """The number of scheduler steps of the latest call."""
        return self._num_timesteps


def denoise(
    pipeline: DiffusionPipeline,
    network: ModelMixin,
    guider: BaseGuidance,
    timesteps: torch.Tensor,
    latents: torch.Tensor,
    forward: Callable[..., torch.Tensor],
    conditions: dict[str, torch.Tensor | tuple | None],
    *,
    eta: float = 0.0,
    generator: torch.Generator | list[torch.Generator] | None,
    callback: StepCallback | None,
    callback_inputs: Sequence[str],
    correct: Callable[..., torch.Tensor] | None = None,
) -> torch.Tensor:
    """
    The loop over all steps of a pipeline.

    Args:
        pipeline ([`DiffusionPipeline`]): the pipeline, a [`DenoisingCallMixin`] with a `scheduler`.
        network ([`ModelMixin`]): its denoiser, which the guider may change.
        guider ([`BaseGuidance`]): the guider of the call.
        timesteps (`torch.Tensor` of shape `(T,)`): the timesteps, descending.
        latents (`torch.Tensor` of shape `(N, C, H, W)`): the noise to start from, float32.
        forward (`Callable`): runs the network, as in [`predict`], with the timestep as `noise_level` besides.
        conditions (`dict`): the other inputs of [`predict`].
        eta (`float`), generator: arguments of the scheduler's step, where it has them.
        callback, callback_inputs: see [`call_back`].
        correct (`Callable`, *optional*): changes a guided prediction, `correct(noise_pred, timestep, latents)`.

    Returns:
        `torch.Tensor` of shape `(N, C, H, W)`: the latents after the last step.
    """
    scheduler, channels = pipeline.scheduler, latents.shape[1]
    step_arguments = get_step_arguments(scheduler, eta=eta, generator=generator)
    takes_gradient, with_variance = accepts(scheduler.step, "condition_gradient"), reads_variance(scheduler)
    with pipeline.progress_bar(total=len(timesteps)) as progress_bar:
        for i, t in enumerate(timesteps):
            if pipeline.interrupt:
                break
            guider = follow_guidance_scale(guider, pipeline._guidance_scale)
            guider.set_state(step=i, num_inference_steps=len(timesteps), timestep=t)
            inputs = {"sample": scale_input(scheduler, latents, t), **conditions}
            run = partial(forward, noise_level=t)
            noise_pred = predict(guider, network, run, inputs, channels, with_variance)
            if correct is not None:
                noise_pred = correct(noise_pred, t, latents)
            if takes_gradient:
                step_arguments["condition_gradient"] = getattr(guider, "condition_gradient", None)
            latents = scheduler.step(noise_pred, t, latents, **step_arguments, return_dict=False)[0]
            tensors = {"latents": latents, "noise_pred": noise_pred}
            latents = call_back(pipeline, callback, callback_inputs, i, t, tensors)
            progress_bar.update()
    return latents


def draw_latents(
    scheduler: SchedulerMixin,
    shape: tuple[int, int, int, int],
    device: torch.device,
    generator: torch.Generator | list[torch.Generator] | None,
    latents: torch.Tensor | None,
) -> torch.Tensor:
    """The noise `(N, C, H, W)` to start from, drawn or given, as strong as the scheduler wants it; float32."""
    if latents is None:
        latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
    return latents.to(device, torch.float32) * getattr(scheduler, "init_noise_sigma", 1.0)
