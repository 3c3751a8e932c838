"""The pipeline around a U-Net of guided-diffusion or improved-diffusion, with its diffusion process and classes."""

from collections.abc import Callable

from diffusers import UNet2DModel

from diffusers_ext.converters.adm_networks import RESCALED_TIMESTEPS
from diffusers_ext.converters.class_names import class_names
from diffusers_ext.converters.family import Saveable
from diffusers_ext.converters.original_arguments import boolean, one_of, require
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.pipelines import ClassConditionalPipeline
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import ExactDDPMScheduler


BETA_SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
# Flags of the originals' scripts that set the diffusion process, apart from those that the network takes too.
PROCESS = {"noise_schedule": one_of(*BETA_SCHEDULES), "sigma_small": boolean, "predict_xstart": boolean}
NUM_INFERENCE_STEPS = 250  # of the READMEs' sampling commands (`--timestep_respacing 250`)


def pixel_diffusion(convert: Callable[..., UNet2DModel], state_dict: StateDict, options: dict) -> dict[str, Saveable]:
    """A [`ClassConditionalPipeline`], or for super-resolution the U-Net and the scheduler.

    Args:
        convert (`Callable`): [`convert_guided_diffusion`] or [`convert_improved_diffusion`].
        state_dict (`Mapping`): the tensors of the original.
        options (`dict`): arguments of `convert`, of the `PROCESS`, and `id2label`.

    Raises:
        ValueError: if options are missing, or do not fit the network.
    """
    id2label = options.pop("id2label", None)
    process = {name: options.pop(name) for name in PROCESS if name in options}
    unet = convert(state_dict, **options)
    require(process, "noise_schedule")
    require(options, "diffusion_steps")
    if options["diffusion_steps"] != RESCALED_TIMESTEPS:
        require(options, "rescale_timesteps")
    scheduler = gaussian_scheduler(unet, options["diffusion_steps"], **process)
    require(options, "image_size")
    if unet.config.get("low_res_channels"):  # no pipeline gives a network a low-resolution image
        return {"unet": unet, "scheduler": scheduler}
    return {
        "": ClassConditionalPipeline(
            unet,
            scheduler,
            id2label=class_names(id2label, unet.config.num_class_embeds),
            default_num_inference_steps=min(NUM_INFERENCE_STEPS, options["diffusion_steps"]),
        )
    }


def gaussian_scheduler(
    unet: UNet2DModel,
    diffusion_steps: int,
    noise_schedule: str,
    sigma_small: bool = False,
    predict_xstart: bool = False,
) -> ExactDDPMScheduler:
    """The diffusion process that the flags of both repositories describe, under the names of the flags."""
    channels = unet.config.in_channels - unet.config.get("low_res_channels", 0)
    if unet.config.out_channels not in (channels, 2 * channels):
        raise ValueError(
            f"The network must return as many channels as images have, {channels}, or twice as many if it predicts "
            f"variances, but returns {unet.config.out_channels}."
        )
    fixed = "fixed_small" if sigma_small else "fixed_large"
    return ExactDDPMScheduler(
        num_train_timesteps=diffusion_steps,
        beta_schedule=BETA_SCHEDULES[noise_schedule],
        variance_type=fixed if unet.config.out_channels == channels else "learned_range",
        prediction_type="sample" if predict_xstart else "epsilon",
        timestep_spacing="linspace",
    )
