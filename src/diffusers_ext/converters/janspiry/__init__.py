"""Janspiry's re-implementations of Palette and SR3.

https://github.com/Janspiry/Palette-Image-to-Image-Diffusion-Models and
https://github.com/Janspiry/Image-Super-Resolution-via-Iterative-Refinement
"""

from diffusers_ext.converters.family import Family
from diffusers_ext.converters.janspiry.checkpoint_parts import SCHEDULE
from diffusers_ext.converters.janspiry.palette_unet import PALETTE_WITH_ADM, PALETTE_WITH_SR3, convert_palette
from diffusers_ext.converters.janspiry.presets import PALETTES, SR3S
from diffusers_ext.converters.janspiry.restorers import palette, sr3, task
from diffusers_ext.converters.janspiry.sr3_unet import SR3_ARGUMENTS, convert_sr3
from diffusers_ext.converters.original_arguments import positive_integer


FAMILIES = (
    Family(
        name="palette",
        description="A network of Janspiry's Palette becomes a PalettePipeline, for any task unless `task` is given. "
        "It samples with the noise schedule of its training, which is in the file, unless another one is given.",
        example="200_Network.pth inpainting --preset inpainting_celebahq",
        convert=palette,
        options={**PALETTE_WITH_ADM, **PALETTE_WITH_SR3, **SCHEDULE, "task": task},
        functions=(convert_palette,),
        presets=PALETTES,
    ),
    Family(
        name="sr3",
        description="A network of Janspiry's SR3 becomes a PalettePipeline for super-resolution from images of the "
        "height `l_resolution`. An unconditional one becomes a ClassConditionalPipeline if it takes timesteps, and "
        "the folders unet and scheduler if it takes noise levels.",
        example="I640000_E37_gen.pth faces-8x --preset sr_sr3_16_128",
        convert=sr3,
        options={**SR3_ARGUMENTS, **SCHEDULE, "task": task, "l_resolution": positive_integer},
        functions=(convert_sr3,),
        presets=SR3S,
    ),
)
