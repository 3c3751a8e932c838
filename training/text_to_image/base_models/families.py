"""The families of text-to-image bases, and how a base is loaded."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DiffusionPipeline

from diffusers_ext.hub.pipeline_folders import refuse_single_file
from diffusers_ext.training.text_to_image.base_models.base_model import BaseModel
from diffusers_ext.training.text_to_image.base_models.stable_diffusion import StableDiffusion
from diffusers_ext.training.text_to_image.base_models.stable_diffusion_3 import StableDiffusion3
from diffusers_ext.training.text_to_image.base_models.stable_diffusion_xl import StableDiffusionXL


# By the pipeline class in `model_index.json`.
FAMILIES = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "StableDiffusion3Pipeline": StableDiffusion3,
}


def load_base_model(
    name_or_path: str, revision: str | None = None, variant: str | None = None, cache_dir: str | None = None
) -> BaseModel:
    """Load a text-to-image pipeline of diffusers, in float32, to build on.

    Args:
        name_or_path (`str`): a local folder or a Hub name. Its `model_index.json` names the family.
        revision, variant, cache_dir (`str`, *optional*): as in `from_pretrained`.

    Raises:
        ValueError: if it is a single file, belongs to another family, or lacks a part.
        OSError: if there is no such pipeline.
    """
    refuse_single_file(name_or_path)
    index = DiffusionPipeline.load_config(name_or_path, revision=revision, cache_dir=cache_dir)
    class_name = index.get("_class_name")
    family = FAMILIES.get(class_name) if isinstance(class_name, str) else None
    if family is None:
        raise ValueError(
            f"The class of {name_or_path} is {class_name}, but text-to-image bases are: {', '.join(FAMILIES)}."
        )
    for part in family.parts():
        lost = Path(name_or_path).is_dir() and not (Path(name_or_path) / part).is_dir()
        if index.get(part, [None, None])[0] is None or lost:
            raise ValueError(f"{name_or_path} has no {part}, which a {class_name} needs to be trained.")
    # from_pretrained needs an explicit None for each optional part that the repository does not have.
    absent = {part: None for part in family.optional_parts if index.get(part, [None, None])[0] is None}
    pipeline = DiffusionPipeline.from_pretrained(
        name_or_path, revision=revision, variant=variant, cache_dir=cache_dir, dtype=torch.float32, **absent
    )
    return take_apart(pipeline, name_or_path)


def take_apart(pipeline: DiffusionPipeline, name: str) -> BaseModel:
    """The adapter of a pipeline in memory; see [`load_base_model`].

    Raises:
        ValueError: if its autoencoder is no `AutoencoderKL`, or the denoiser reads more than latents.
    """
    base = FAMILIES[type(pipeline).__name__](pipeline, name)
    if not isinstance(base.vae, AutoencoderKL):
        raise ValueError(f"The vae of {name} must be an AutoencoderKL, not {type(base.vae).__name__}.")
    read, encoded = base.denoiser.config.in_channels, base.vae.config.latent_channels
    if read != encoded:
        raise ValueError(
            f"The {base.denoiser_name} of {name} reads {read} channels, but its vae gives {encoded}: inpainting "
            "models and the like are not text-to-image bases."
        )
    return base
