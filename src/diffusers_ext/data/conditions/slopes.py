"""The brightness of images and its slopes, for edge detectors."""

import numpy as np
import torch
import torch.nn.functional as F

from diffusers_ext.data.corruptions.colors import colorization
from diffusers_ext.data.corruptions.levels import to_levels
from diffusers_ext.data.corruptions.option_checks import check_channels


def as_three_channels(images: torch.Tensor) -> torch.Tensor:
    """Gray or RGB images (N, 1 or 3, H, W) as (N, 3, H, W).

    Raises:
        ValueError: for another number of channels.
    """
    check_channels("a condition", images, (1, 3))
    return images.expand(-1, 3, -1, -1)


def brightness(images: torch.Tensor) -> torch.Tensor:
    """The luma of images (N, 1 or 3, H, W) in [-1, 1]: float64 (N, 1, H, W) in [0, 1], at the 256 levels of a file.

    In double precision, because rounding decides which side of an edge is kept if the slopes are equal on both sides.
    """
    gray = colorization(as_three_channels(images), None).conditioning_image
    return to_levels(gray[:, :1]).double() / 255


def smooth(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Smooths images (N, 1, H, W) by a Gaussian with the standard deviation `sigma` in pixels, cut off at 4 sigma.

    Near the borders, the weights of the pixels inside of the image are rescaled to sum to one.
    """
    if sigma == 0:
        return images
    radius = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 / (sigma * sigma) * np.arange(-radius, radius + 1) ** 2)
    weights = (weights / weights.sum()).tolist()[radius:]
    inside = torch.ones_like(images[:1])
    for dim in (-2, -1):
        images, inside = (_symmetric_sum(values, weights, dim) for values in (images, inside))
    return images / (inside + torch.finfo(images.dtype).eps)


def _symmetric_sum(values: torch.Tensor, weights: list[float], dim: int) -> torch.Tensor:
    """The weighted sum of each value and the values at distances 1, 2, ... on both sides; zeros beyond the borders.

    Both sides are added before they are weighted, so that the sums of symmetric images are symmetric to the last bit.
    """
    length, radius = values.shape[dim], len(weights) - 1
    padded = F.pad(values, (0, 0, radius, radius) if dim == -2 else (radius, radius))
    total = values * weights[0]
    for distance in range(radius, 0, -1):
        before = padded.narrow(dim, radius - distance, length)
        total = total + (before + padded.narrow(dim, radius + distance, length)) * weights[distance]
    return total


def slopes(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sobel's slopes of images (N, 1, H, W) along y and x, which are eight times the slope per pixel.

    Beyond the borders, the outermost pixels are repeated.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")

    def slope(dim: int, other: int, length: int, across: int) -> torch.Tensor:
        difference = padded.narrow(dim, 2, length) - padded.narrow(dim, 0, length)
        sides = difference.narrow(other, 0, across) + difference.narrow(other, 2, across)
        return difference.narrow(other, 1, across) * 2 + sides

    return slope(-2, -1, height, width), slope(-1, -2, width, height)
