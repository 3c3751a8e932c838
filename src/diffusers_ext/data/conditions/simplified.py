"""Simplified images: blurred, without colour, or with low resolution."""

import torch

from diffusers_ext.data.conditions.slopes import as_three_channels
from diffusers_ext.data.corruptions.blur import convolve, gaussian_kernel
from diffusers_ext.data.corruptions.colors import colorization
from diffusers_ext.data.corruptions.levels import from_levels, to_levels
from diffusers_ext.data.corruptions.resampling import super_resolution


def blur(images: torch.Tensor, *, sigma: float = 4.0) -> torch.Tensor:
    """Gaussian blur. Beyond the borders, the outermost pixels are repeated.

    Args:
        images: (N, 1 or 3, H, W) in [-1, 1].
        sigma: the standard deviation, in pixels.

    Returns:
        (N, 3, H, W) in [-1, 1].

    Raises:
        ValueError: for a sigma that is not positive.
    """
    if not sigma > 0:
        raise ValueError(f"blur needs a positive sigma, not {sigma!r}")
    kernel = gaussian_kernel(sigma).to(images.device)
    blurred = torch.stack([convolve(image, kernel) for image in as_three_channels(images).float()])
    return from_levels(to_levels(blurred))


def grayscale(images: torch.Tensor) -> torch.Tensor:
    """Grayscale: Rec. 601 luma in three equal channels.

    Args:
        images: (N, 1 or 3, H, W) in [-1, 1].

    Returns:
        (N, 3, H, W) in [-1, 1].
    """
    return colorization(as_three_channels(images), None).conditioning_image


def low_resolution(images: torch.Tensor, *, factor: float = 8) -> torch.Tensor:
    """Low resolution: images are made smaller by a factor and resized back, both by bicubic interpolation.

    Args:
        images: (N, 1 or 3, H, W) in [-1, 1].
        factor: the small image has round(H / factor) by round(W / factor) pixels.

    Returns:
        (N, 3, H, W) in [-1, 1].

    Raises:
        ValueError: for a factor below 1, or one that is larger than an image.
    """
    return super_resolution(as_three_channels(images), None, factor=factor).conditioning_image
