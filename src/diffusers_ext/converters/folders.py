"""From an original checkpoint file to a folder that `from_pretrained` loads."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import DDIMScheduler, LDMPipeline, UNet2DModel

from diffusers_ext.converters.arguments import check_boolean
from diffusers_ext.converters.autoencoders import convert_first_stage, vqgan
from diffusers_ext.converters.classifiers import convert_guided_diffusion_classifier, mnist_lenet
from diffusers_ext.converters.gans import dcgan, mnist_mlp_gan
from diffusers_ext.converters.janspiry import (
    PALETTE_BUFFERS,
    SCHEDULE,
    SR3_BUFFERS,
    ancestral_scheduler,
    network_tensors,
)
from diffusers_ext.converters.latents import FIRST_STAGE, part
from diffusers_ext.converters.layout import has
from diffusers_ext.converters.presets import PRESETS
from diffusers_ext.converters.reading import listed, read_companion, read_state_dict
from diffusers_ext.converters.sr3 import convert_sr3, read_sr3_layout
from diffusers_ext.converters.translation import cyclegan, pix2pix
from diffusers_ext.converters.unets import (
    NUM_GROUPS,
    RESCALED_TIMESTEPS,
    convert_guided_diffusion,
    convert_improved_diffusion,
    convert_latent_diffusion,
    convert_palette,
)
from diffusers_ext.converters.vaes import (
    COMPANIONS,
    disentangling_vae,
    mnist_mlp_vae,
    pythae,
    pytorch_vae,
)
from diffusers_ext.hub.atomic import written_beside
from diffusers_ext.pipelines import ClassConditionalPipeline, PalettePipeline
from diffusers_ext.pipelines.palette_tasks import TASKS
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import ExactDDPMScheduler


# Families whose tensors tell nearly all: functions from tensors and options to the components of a folder, by the name
# of their part of it ("" for all of it), and what they assumed.
SELF_EXPLANATORY = {
    "dcgan": dcgan,
    "mnist_mlp_gan": mnist_mlp_gan,
    "mnist_lenet": mnist_lenet,
    "pix2pix": pix2pix,
    "cyclegan": cyclegan,
    "vqgan": vqgan,
    "mnist_mlp_vae": mnist_mlp_vae,
    "pythae": pythae,
    "disentangling_vae": disentangling_vae,
    "pytorch_vae": pytorch_vae,
}
FAMILIES = tuple(dict.fromkeys((*PRESETS, *SELF_EXPLANATORY)))
BETA_SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
# What no tensor shows either, and hardly any network has: the originals' defaults hold, and are told.
ASSUMED = {
    "guided_diffusion": {"use_new_attention_order": False, "sigma_small": False, "predict_xstart": False},
    "guided_diffusion_classifier": {"use_new_attention_order": False},
    "improved_diffusion": {"sigma_small": False, "predict_xstart": False},
    "latent_diffusion": {"use_new_attention_order": False},
    "palette": {"use_new_attention_order": False},
    "sr3": {"norm_groups": NUM_GROUPS},
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
    `guided_diffusion_classifier` a [`NoisyClassifier`], those of `latent_diffusion` diffusers' `LDMPipeline`, those of
    `palette` and `sr3` a [`PalettePipeline`]. What no pipeline runs becomes two folders, `unet` and `scheduler`: a
    super-resolution network of `guided_diffusion` and `improved_diffusion`, a latent one without its first stage, and
    an unconditional one of `sr3` that is told noise levels. One that is told timesteps becomes a
    [`ClassConditionalPipeline`]. Generators of `pix2pix` and `cyclegan` become an [`ImageTranslationPipeline`], their
    discriminators a [`PatchDiscriminator`]. Generators of `dcgan` and `mnist_mlp_gan` become a [`GANPipeline`], their
    discriminators alone a [`DCGANDiscriminator`] or [`MLPDiscriminator`]. Files of `mnist_mlp_vae`, `pythae`,
    `disentangling_vae` and `pytorch_vae` become an [`AutoencoderPipeline`], those of `vqgan` diffusers' `VQModel`.

    Args:
        file (`str` or `os.PathLike`):
            What `torch.save` or safetensors wrote. Of `pythae` and `disentangling_vae` it may be the folder of a run;
            the `model_config.json` or `specs.json` beside a file is read in any case.
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
            `rescale_timesteps`, `sigma_small` and `predict_xstart`, for latent diffusion `timesteps`, `linear_start`
            and `linear_end`, and for Palette and SR3 `schedule` (`"linear"`, `"quad"` or `"cosine"`), `n_timestep`,
            `linear_start` and `linear_end`, the schedule to sample with, by default that of the training, which is in
            the file. These two also have `task`, by default any for Palette and `"super_resolution"` for SR3, and SR3
            has `l_resolution`, the height of images before super-resolution. Generators of pix2pix and CycleGAN have
            `reverse_file`, the checkpoint of the generator for the other direction, and those of `dcgan` and
            `mnist_mlp_gan` `discriminator_file`, that of their discriminator.

    Returns:
        `str`: what was written, in a sentence.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no such checkpoint, an option is missing, unknown or wrong, or the folder is taken.
    """
    if family not in FAMILIES:
        raise ValueError(f"There is no family {family!r}: it must be one of {', '.join(FAMILIES)}.")
    if preset is not None:
        if preset not in PRESETS.get(family, {}):
            names = ", ".join(PRESETS.get(family, {}))
            raise ValueError(
                f"There is no preset {preset!r} of {family}: "
                + (f"it must be one of {names}." if names else "it has none, and needs none.")
            )
        options = {**PRESETS[family][preset], **options}
    output_dir = Path(output_dir)
    if id2label is not None and family not in ("guided_diffusion", "improved_diffusion"):
        raise ValueError(f"`id2label` is for class-conditional pipelines, which {family} does not become.")
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise ValueError(f"{output_dir} is taken: give a folder that does not exist, or an empty one.")
    if family in COMPANIONS:
        filename, entries = COMPANIONS[family]
        file = Path(file) / "model.pt" if os.path.isdir(file) else file
        told = read_companion(file, filename)
        options = {**{name: told[name] for name in entries if told.get(name) is not None}, **options}
    state_dict = read_state_dict(file)
    if family in SELF_EXPLANATORY:
        components, assumed = SELF_EXPLANATORY[family](state_dict, options)
    else:
        components, assumed = _diffusion(state_dict, family, options, id2label)

    with written_beside(output_dir) as folder:
        for name, component in components.items():
            component.save_pretrained(folder / name)
    written = [f"{type(component).__name__} in {output_dir / name}" for name, component in components.items()]
    return " and ".join(written) + (f", assuming {', '.join(assumed)}" if assumed else "")


def _diffusion(state_dict: Mapping[str, torch.Tensor], family: str, options: dict, id2label) -> tuple[dict, list[str]]:
    """The components of the folder, and what was assumed."""
    # Palette may have the network of SR3
    is_sr3 = family == "palette" and has(network_tensors(state_dict, PALETTE_BUFFERS), "downs")
    defaults = ASSUMED["sr3" if is_sr3 else family]
    assumed = [f"{name}={value}" for name, value in defaults.items() if name not in options]
    if family in ("palette", "sr3") and not any(name in options for name in SCHEDULE):
        assumed.append("the noise schedule of the training")

    if family == "guided_diffusion_classifier":
        components = {"": convert_guided_diffusion_classifier(state_dict, **options)}
    elif family == "latent_diffusion":
        components = _latent_diffusion(state_dict, options)
    elif family == "palette":
        components = _palette(state_dict, options)
    elif family == "sr3":
        components = _sr3(state_dict, options)
    else:
        components = _pixel_diffusion(state_dict, family, options, id2label)
    # asked for after the conversion: what is wrong with the file comes first
    require(options, "image_size")
    return components, assumed


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
    if id2label is not None:
        check_id2label(id2label, num_classes)
    elif num_classes is not None:
        id2label = {label: str(label) for label in range(num_classes)}
    steps = min(NUM_INFERENCE_STEPS, options["diffusion_steps"])
    return {"": ClassConditionalPipeline(unet, scheduler, id2label=id2label, default_num_inference_steps=steps)}


def _palette(state_dict: Mapping[str, torch.Tensor], options: dict) -> dict:
    process = {name: options.pop(name) for name in SCHEDULE if name in options}
    tasks = check_task(options.pop("task", None))
    unet = convert_palette(state_dict, **options)
    scheduler = ancestral_scheduler(state_dict, process)
    return {"": _restorer(unet, scheduler, tasks=tasks, noise_conditioning="gamma")}


def _sr3(state_dict: Mapping[str, torch.Tensor], options: dict) -> dict:
    process = {name: options.pop(name) for name in SCHEDULE if name in options}
    tasks = check_task(options.pop("task", "super_resolution"))
    l_resolution = options.pop("l_resolution", None)
    unet = convert_sr3(state_dict, **options)
    scheduler = ancestral_scheduler(state_dict, process)
    is_told_timesteps = read_sr3_layout(network_tensors(state_dict, SR3_BUFFERS)).kind == "ddpm"
    if unet.config.in_channels == unet.config.out_channels:
        if not is_told_timesteps:
            return {"unet": unet, "scheduler": scheduler}
        return {"": ClassConditionalPipeline(unet, scheduler, default_num_inference_steps=len(scheduler))}
    factor = None
    if l_resolution is not None:
        require(options, "image_size")
        factor = scale_factor(options["image_size"], l_resolution)
    noise_conditioning = "timestep" if is_told_timesteps else "sqrt_gamma"
    return {
        "": _restorer(unet, scheduler, tasks=tasks, noise_conditioning=noise_conditioning, default_scale_factor=factor)
    }


def _restorer(unet: UNet2DModel, scheduler: ExactDDPMScheduler, **config) -> PalettePipeline:
    """The originals take all the steps of their schedule, and draw the noise of the posterior's variance."""
    channels = unet.config.out_channels
    return PalettePipeline(
        unet, scheduler, image_channels=channels, default_num_inference_steps=len(scheduler), **config
    )


def check_id2label(id2label: Mapping, num_classes: int) -> None:
    """Refuses other ids than those of the classes, as integers or, from JSON, as their digits, and other names than
    strings."""
    ids, wanted = [str(label) for label in id2label], [str(label) for label in range(num_classes)]
    lacking, surplus = (sorted(set(a) - set(b), key=a.index) for a, b in ((wanted, ids), (ids, wanted)))
    if lacking or surplus:
        problems = {"lacks": lacking, "also has": surplus}
        found = " and ".join(f"{problem} {listed(labels)}" for problem, labels in problems.items() if labels)
        raise ValueError(f"`id2label` must name the classes from 0 to {num_classes - 1}, but {found}.")
    for label, name in id2label.items():
        if not isinstance(name, str):
            raise ValueError(f"`id2label` must hold names, but that of class {label} is {name!r}.")


def check_task(task: str | None) -> list[str] | None:
    """The `tasks` of the pipeline."""
    if task is None:
        return None
    if not isinstance(task, str) or not all(part in TASKS for part in task.split("+")):
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}, but is {task!r}.")
    return [task]


def scale_factor(image_size: int, l_resolution: int) -> float:
    is_integer = isinstance(l_resolution, int) and not isinstance(l_resolution, bool)
    if not is_integer or not 1 <= l_resolution <= image_size:
        raise ValueError(f"`l_resolution` must be an integer from 1 to {image_size}, but is {l_resolution!r}.")
    return image_size / l_resolution


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
    if noise_schedule not in list(BETA_SCHEDULES):  # which may be unhashable
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
