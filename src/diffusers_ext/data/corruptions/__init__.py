"""Corruptions of clean images, one for each restoration task: functions of a batch and a source of random numbers."""

from diffusers_ext.data.corruptions.blur import deblurring as deblurring
from diffusers_ext.data.corruptions.colors import colorization as colorization
from diffusers_ext.data.corruptions.corruption import Corruption as Corruption
from diffusers_ext.data.corruptions.jpeg import jpeg_restoration as jpeg_restoration
from diffusers_ext.data.corruptions.masking import inpainting as inpainting, uncropping as uncropping
from diffusers_ext.data.corruptions.noise import denoising as denoising
from diffusers_ext.data.corruptions.outlines import outlines as outlines
from diffusers_ext.data.corruptions.registry import (
    CORRUPTIONS as CORRUPTIONS,
    TRANSLATION_INPUTS as TRANSLATION_INPUTS,
    describe_corruptions as describe_corruptions,
    load_corruptions as load_corruptions,
)
from diffusers_ext.data.corruptions.resampling import super_resolution as super_resolution
