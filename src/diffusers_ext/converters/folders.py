"""From an original checkpoint file to a folder that `from_pretrained` loads."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import DDIMScheduler, LDMPipeline, UNet2DModel

from diffusers_ext.converters.arguments import check_boolean
from diffusers_ext.converters.autoencoders import convert_first_stage
from diffusers_ext.converters.classifiers import convert_guided_diffusion_classifier
from diffusers_ext.converters.latents import FIRST_STAGE, part
from diffusers_ext.converters.presets import PRESETS
from diffusers_ext.converters.reading import read_state_dict
from diffusers_ext.converters.unets import (
    RESCALED_TIMESTEPS,
    convert_guided_diffusion,
    convert_improved_diffusion,
    convert_latent_diffusion,
)
from diffusers_ext.hub.atomic import written_beside
from diffusers_ext.pipelines import ClassConditionalPipeline
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import ExactDDPMScheduler


FAMILIES = tuple(PRESETS)
BETA_SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
# What no tensor shows either, and hardly any network has: the originals' defaults hold, and are told.
ASSUMED = {
    "guided_diffusion": ("use_new_attention_order", "sigma_small", "predict_xstart"),
    "guided_diffusion_classifier": ("use_new_attention_order",),
    "improved_diffusion": ("sigma_small", "predict_xstart"),
    "latent_diffusion": ("use_new_attention_order",),
}
# Steps of the READMEs' sampling commands (`--timestep_respacing 250`).
NUM_INFERENCE_STEPS = 250


def convert_checkpoint(
    file: str | os.PathLike,
    output_dir: str | os.PathLike,
    family: str,
    preset: str | None = None,
    id2label: Mapping[int, str] | None = None,
    **options,
) -> str:
    r"""
    Converts a checkpoint file to a folder, which appears whole or not at all.

    Files of `guided_diffusion` and `improved_diffusion` become a [`ClassConditionalPipeline`], those of
    `guided_diffusion_classifier` a [`NoisyClassifier`], those of `latent_diffusion` diffusers' `LDMPipeline`. No
    pipeline runs a super-resolution network, nor a latent one without its first stage: those become two folders,
    `unet` and `scheduler`.

    Args:
        file (`str` or `os.PathLike`):
            What `torch.save` or safetensors wrote.
        output_dir (`str` or `os.PathLike`):
            The folder to write, which must not exist or be empty.
        family (`str`):
            The repository and network the file comes from: one of `FAMILIES`.
        preset (`str`, *optional*):
            The published checkpoint that it is: a name in `PRESETS[family]`.
        id2label (`dict[int, str]`, *optional*, defaults to the ids themselves):
            The names of the classes.
        options:
            What the tensors do not show, over what the preset says: the arguments of the original's network and of
            its process, which are `diffusion_steps`, `noise_schedule` (`"linear"` or `"cosine"`),
            `rescale_timesteps`, `sigma_small` and `predict_xstart`, or for latent diffusion `timesteps`,
            `linear_start` and `linear_end`.

    Returns:
        `str`: what was written, in a sentence.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no such checkpoint, an option is missing, unknown or wrong, or the folder is taken.
    """
    if family not in FAMILIES:
        raise ValueError(f"There is no family {family!r}: it must be one of {', '.join(FAMILIES)}.")
    if preset is not None:
        if preset not in PRESETS[family]:
            raise ValueError(
                f"There is no preset {preset!r} of {family}: it must be one of {', '.join(PRESETS[family])}."
            )
        options = {**PRESETS[family][preset], **options}
    output_dir = Path(output_dir)
    if id2label is not None and family not in ("guided_diffusion", "improved_diffusion"):
        raise ValueError(f"`id2label` is for class-conditional pipelines, which {family} does not become.")
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise ValueError(f"{output_dir} is taken: give a folder that does not exist, or an empty one.")
    assumed = [f"{name}=False" for name in ASSUMED[family] if name not in options]
    state_dict = read_state_dict(file)

    if family == "guided_diffusion_classifier":
        components = {"": convert_guided_diffusion_classifier(state_dict, **options)}
    elif family == "latent_diffusion":
        components = _latent_diffusion(state_dict, options)
    else:
        components = _pixel_diffusion(state_dict, family, options, id2label)
    # asked for after the conversion: what is wrong with the file comes first
    require(options, "image_size")

    with written_beside(output_dir) as folder:
        for name, component in components.items():
            component.save_pretrained(folder / name)
    written = [f"{type(component).__name__} in {output_dir / name}" for name, component in components.items()]
    return " and ".join(written) + (f", assuming {', '.join(assumed)}" if assumed else "")


def require(options: Mapping, *names: str) -> None:
    """Refuses to guess what no tensor shows."""
    for name in names:
        if name not in options:
            raise ValueError(f"The checkpoint does not show its `{name}`: give it as an option, or name the preset.")


def _pixel_diffusion(state_dict: Mapping[str, torch.Tensor], family: str, options: dict, id2label) -> dict:
    process = {
        name: options.pop(name) for name in ("noise_schedule", "sigma_small", "predict_xstart") if name in options
    }
    convert = {"guided_diffusion": convert_guided_diffusion, "improved_diffusion": convert_improved_diffusion}[family]
    unet = convert(state_dict, **options)
    require(process, "noise_schedule")
    require(options, "diffusion_steps")
    if options["diffusion_steps"] != RESCALED_TIMESTEPS:
        require(options, "rescale_timesteps")
    scheduler = gaussian_scheduler(unet, options["diffusion_steps"], **process)
    if unet.config.get("low_res_channels"):  # no pipeline gives a network a low-resolution image
        return {"unet": unet, "scheduler": scheduler}
    num_classes = unet.config.num_class_embeds
    if id2label is not None and num_classes is None:
        raise ValueError("`id2label` names classes, but the network has none.")
    if id2label is None and num_classes is not None:
        id2label = {label: str(label) for label in range(num_classes)}
    steps = min(NUM_INFERENCE_STEPS, options["diffusion_steps"])
    return {"": ClassConditionalPipeline(unet, scheduler, id2label=id2label, default_num_inference_steps=steps)}


def gaussian_scheduler(
    unet: UNet2DModel,
    diffusion_steps: int,
    noise_schedule: str,
    sigma_small: bool = False,
    predict_xstart: bool = False,
) -> ExactDDPMScheduler:
    """The process of the flags that guided-diffusion and improved-diffusion share, by their names."""
    check_boolean("sigma_small", sigma_small)
    check_boolean("predict_xstart", predict_xstart)
    if noise_schedule not in BETA_SCHEDULES:
        raise ValueError(f"`noise_schedule` must be 'linear' or 'cosine', but is {noise_schedule!r}.")
    channels = unet.config.in_channels - unet.config.get("low_res_channels", 0)
    if unet.config.out_channels not in (channels, 2 * channels):
        raise ValueError(
            f"The network must put out as many channels as images have, {channels}, or with variances twice as many, "
            f"but puts out {unet.config.out_channels}."
        )
    fixed = "fixed_small" if sigma_small else "fixed_large"
    return ExactDDPMScheduler(
        num_train_timesteps=diffusion_steps,
        beta_schedule=BETA_SCHEDULES[noise_schedule],
        variance_type=fixed if unet.config.out_channels == channels else "learned_range",
        prediction_type="sample" if predict_xstart else "epsilon",
        timestep_spacing="linspace",
    )


def _latent_diffusion(state_dict: Mapping[str, torch.Tensor], options: dict) -> dict:
    process = {name: options.pop(name) for name in ("timesteps", "linear_start", "linear_end") if name in options}
    unet = convert_latent_diffusion(state_dict, **options)
    scheduler = latent_scheduler(state_dict, process)
    first_stage = part(state_dict, FIRST_STAGE)
    if not first_stage:
        return {"unet": unet, "scheduler": scheduler}
    require(options, "image_size")
    factor = float(state_dict["scale_factor"]) if "scale_factor" in state_dict else 1.0
    vqvae = convert_first_stage(first_stage, scaling_factor=factor)
    vqvae.register_to_config(sample_size=options["image_size"] * 2 ** (len(vqvae.config.block_out_channels) - 1))
    return {"": LDMPipeline(vqvae=vqvae, unet=unet, scheduler=scheduler)}


def latent_scheduler(state_dict: Mapping[str, torch.Tensor], process: dict) -> DDIMScheduler:
    """The process of latent-diffusion: its betas are those of the checkpoint, where it has any.

    Their square roots grow linearly from that of `linear_start` to that of `linear_end`, in `timesteps` steps.
    """
    for name, value in process.items():
        kind, described = (int, "integer") if name == "timesteps" else ((int, float), "number")
        if isinstance(value, bool) or not isinstance(value, kind) or value <= 0:
            raise ValueError(f"`{name}` must be a positive {described}, but is {value!r}.")
    betas = state_dict.get("betas")
    if betas is not None:
        read = {"timesteps": len(betas), "linear_start": float(betas[0]), "linear_end": float(betas[-1])}
        for name, value in read.items():
            if abs(process.setdefault(name, value) - value) > 1e-6:
                raise ValueError(f"`{name}` is given as {process[name]}, but the checkpoint has {value:g}.")
    require(process, "timesteps", "linear_start", "linear_end")
    scheduler = DDIMScheduler(
        num_train_timesteps=process["timesteps"],
        beta_start=process["linear_start"],
        beta_end=process["linear_end"],
        beta_schedule="scaled_linear",
        clip_sample=False,
        # the original's DDIM visits 1, 1 + T / n, ..., and ends where its first training step starts
        set_alpha_to_one=False,
        steps_offset=1,
    )
    if betas is not None and not torch.allclose(scheduler.betas, betas.float(), rtol=1e-4, atol=1e-7):
        raise ValueError("The checkpoint's betas are of another schedule than latent-diffusion's linear one.")
    return scheduler
