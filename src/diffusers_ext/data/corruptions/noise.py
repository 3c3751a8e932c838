"""The task "denoising": Gaussian noise, like that of a sensor."""

import torch

from diffusers_ext.data.corruptions.corruption import Corruption
from diffusers_ext.data.corruptions.levels import from_levels, to_levels
from diffusers_ext.data.corruptions.option_checks import check_range


def denoising(images: torch.Tensor, draw, *, sigma: float | tuple[float, float] = (5.0, 50.0)) -> Corruption:
    """Gaussian noise with a random standard deviation; values out of range are clipped, as in a file.

    Args:
        images: (N, C, H, W) in [-1, 1].
        draw: draws the standard deviations (uniformly) and the noise.
        sigma: the lowest and the highest standard deviation, in levels of 255, or one fixed number.

    Raises:
        ValueError: for a negative or reversed range.
    """
    lowest, highest = check_range("sigma", sigma, 0)
    sigmas = (lowest + (highest - lowest) * draw.uniform()) / 127.5
    noise = sigmas.view(-1, 1, 1, 1) * draw.normal_like(images)
    return Corruption(from_levels(to_levels(images + noise.to(images))))
