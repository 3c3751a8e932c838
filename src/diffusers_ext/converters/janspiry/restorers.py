"""The pipelines around networks of Palette and SR3."""

from diffusers import UNet2DModel

from diffusers_ext.converters.family import Conversion, assumptions
from diffusers_ext.converters.janspiry.checkpoint_parts import (
    PALETTE_BUFFERS,
    SCHEDULE,
    SR3_BUFFERS,
    ancestral_scheduler,
    network_tensors,
)
from diffusers_ext.converters.janspiry.palette_unet import convert_palette
from diffusers_ext.converters.janspiry.sr3_layout import read_sr3_layout
from diffusers_ext.converters.janspiry.sr3_unet import NUM_GROUPS, convert_sr3
from diffusers_ext.converters.original_arguments import require
from diffusers_ext.converters.state_dicts import StateDict, has
from diffusers_ext.pipelines import ClassConditionalPipeline, PalettePipeline
from diffusers_ext.pipelines.palette_tasks import TASKS
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import ExactDDPMScheduler


# What no tensor shows, with the originals' defaults.
ADM_DEFAULTS = {"use_new_attention_order": False}
SR3_DEFAULTS = {"norm_groups": NUM_GROUPS}


def task(name: str, value) -> str | None:
    """The kind of the option `task`: a task of [`PalettePipeline`], several joined by `+`, or `None` for any."""
    if value is not None and not (isinstance(value, str) and all(part in TASKS for part in value.split("+"))):
        raise ValueError(f"`{name}` must be one of {', '.join(TASKS)}, but is {value!r}.")
    return value


def palette(state_dict: StateDict, options: dict) -> Conversion:
    """A [`PalettePipeline`] whose network takes alpha_bar."""
    is_sr3 = has(network_tensors(state_dict, PALETTE_BUFFERS), "downs")
    assumed = _assumed(options, SR3_DEFAULTS if is_sr3 else ADM_DEFAULTS)
    schedule, chosen = _pop_schedule(options), options.pop("task", None)
    unet = convert_palette(state_dict, **options)
    scheduler = ancestral_scheduler(state_dict, schedule)
    require(options, "image_size")
    return Conversion({"": _restorer(unet, scheduler, chosen, noise_conditioning="gamma")}, assumed)


def sr3(state_dict: StateDict, options: dict) -> Conversion:
    """A [`PalettePipeline`] for super-resolution, or what an unconditional network becomes."""
    assumed = _assumed(options, SR3_DEFAULTS)
    schedule, chosen = _pop_schedule(options), options.pop("task", "super_resolution")
    l_resolution = options.pop("l_resolution", None)
    unet = convert_sr3(state_dict, **options)
    scheduler = ancestral_scheduler(state_dict, schedule)
    require(options, "image_size")
    takes_timesteps = read_sr3_layout(network_tensors(state_dict, SR3_BUFFERS)).kind == "ddpm"
    if unet.config.in_channels == unet.config.out_channels:
        if not takes_timesteps:
            return Conversion({"unet": unet, "scheduler": scheduler}, assumed)
        pipeline = ClassConditionalPipeline(unet, scheduler, default_num_inference_steps=len(scheduler))
        return Conversion({"": pipeline}, assumed)
    restorer = _restorer(
        unet,
        scheduler,
        chosen,
        noise_conditioning="timestep" if takes_timesteps else "sqrt_gamma",
        default_scale_factor=None if l_resolution is None else _scale_factor(options["image_size"], l_resolution),
    )
    return Conversion({"": restorer}, assumed)


def _restorer(unet: UNet2DModel, scheduler: ExactDDPMScheduler, task: str | None, **config) -> PalettePipeline:
    """By default the originals take all steps of their schedule."""
    return PalettePipeline(
        unet,
        scheduler,
        tasks=None if task is None else [task],
        image_channels=unet.config.out_channels,
        default_num_inference_steps=len(scheduler),
        **config,
    )


def _pop_schedule(options: dict) -> dict:
    return {name: options.pop(name) for name in SCHEDULE if name in options}


def _assumed(options: dict, defaults: dict) -> list[str]:
    is_given = any(name in options for name in SCHEDULE)
    return assumptions(options, defaults) + ([] if is_given else ["the noise schedule of the training"])


def _scale_factor(image_size: int, l_resolution: int) -> float:
    if l_resolution > image_size:
        raise ValueError(f"`l_resolution` must be an integer from 1 to {image_size}, but is {l_resolution}.")
    return image_size / l_resolution
