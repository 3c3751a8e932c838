"""Restoration tasks: what each does to clean images, as functions of a batch and a source of random numbers."""

from diffusers_ext.data.corruptions.blur import deblurring
from diffusers_ext.data.corruptions.colors import colorization
from diffusers_ext.data.corruptions.corruption import Corruption
from diffusers_ext.data.corruptions.jpeg import jpeg_restoration
from diffusers_ext.data.corruptions.masking import inpainting, uncropping
from diffusers_ext.data.corruptions.noise import denoising
from diffusers_ext.data.corruptions.registry import CORRUPTIONS, describe_corruptions, load_corruptions
from diffusers_ext.data.corruptions.resampling import super_resolution


__all__ = [
    "CORRUPTIONS",
    "Corruption",
    "colorization",
    "deblurring",
    "denoising",
    "describe_corruptions",
    "inpainting",
    "jpeg_restoration",
    "load_corruptions",
    "super_resolution",
    "uncropping",
]
