"""Original checkpoints in, classes of this package or of diffusers out: `python -m diffusers_ext.converters`."""

from diffusers_ext.converters.classifiers import convert_guided_diffusion_classifier
from diffusers_ext.converters.folders import convert_checkpoint
from diffusers_ext.converters.sr3 import convert_sr3
from diffusers_ext.converters.unets import (
    convert_guided_diffusion,
    convert_improved_diffusion,
    convert_latent_diffusion,
    convert_palette,
)


__all__ = [
    "convert_checkpoint",
    "convert_guided_diffusion",
    "convert_guided_diffusion_classifier",
    "convert_improved_diffusion",
    "convert_latent_diffusion",
    "convert_palette",
    "convert_sr3",
]
