"""The task "deblurring": blur of a lens or of a moving camera."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from diffusers_ext.data.alpha import divide_by_alpha, has_alpha, weight_by_alpha
from diffusers_ext.data.corruptions.corruption import Corruption
from diffusers_ext.data.corruptions.levels import from_levels, to_levels
from diffusers_ext.data.corruptions.option_checks import check_names, check_range


_KERNELS = ("gaussian", "motion")


def deblurring(
    images: torch.Tensor,
    draw,
    *,
    kernels: Sequence[str] = _KERNELS,
    sigma: float | tuple[float, float] = (0.5, 2.0),
    length: float | tuple[float, float] = (3.0, 11.0),
) -> Corruption:
    """Blur: by a Gaussian, or by motion along a straight line in any direction, each for half of the images.

    Beyond the borders, the outermost pixels are repeated. Colours are weighted by the alpha channel if there is one (2
    or 4 channels).

    Args:
        images: (N, C, H, W) in [-1, 1].
        draw: draws the kind, the strength (uniform in its range) and the direction of the blur.
        kernels: the kinds to choose from, gaussian and motion.
        sigma: the lowest and the highest standard deviation of the Gaussian, in pixels, or one fixed number.
        length: the shortest and the longest distance that a point moves, in pixels, or one fixed number.

    Raises:
        ValueError: for no kernels or an unknown kernel, or a negative or reversed range.
    """
    kernels = check_names("kernels", kernels)
    if not kernels or not set(kernels) <= set(_KERNELS):
        raise ValueError(f"kernels must be one or both of {', '.join(_KERNELS)}, not {kernels}")
    sigma, length = check_range("sigma", sigma, 0.01), check_range("length", length, 0)
    kinds = draw.host.integers(len(kernels)).tolist()
    strengths, turns = draw.host.uniform().tolist(), draw.host.uniform().tolist()
    blurred = []
    for image, kind, strength, turn in zip(images.float(), kinds, strengths, turns, strict=True):
        if kernels[kind] == "gaussian":
            kernel = gaussian_kernel(sigma[0] + (sigma[1] - sigma[0]) * strength)
        else:
            kernel = motion_kernel(length[0] + (length[1] - length[0]) * strength, math.pi * turn)
        # One by one, so that the sums for an image do not depend on the batch size.
        blurred.append(blur(image, kernel.to(image)))
    return Corruption(from_levels(to_levels(torch.stack(blurred))))


def blur(image: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Blurs (C, H, W) in [-1, 1] by a kernel (K, K), K odd; colours are weighted by transparency."""
    if not has_alpha(image):
        return convolve(image, kernel)
    return from_levels(divide_by_alpha(convolve(weight_by_alpha(to_levels(image)), kernel)))


def gaussian_kernel(sigma: float) -> torch.Tensor:
    """A Gaussian kernel with a standard deviation in pixels, cut off at 3 sigma: (K, K) with odd K and sum 1."""
    radius = math.ceil(3 * sigma)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = torch.outer(weights, weights)
    return kernel / kernel.sum()


def motion_kernel(length: float, angle: float) -> torch.Tensor:
    """The trace of a point that moves `length` pixels along a straight line: (K, K) with odd K and sum 1.

    Args:
        length: in pixels; 0 does not blur.
        angle: in radians, from the x axis towards the y axis, which points down.
    """
    radius = math.ceil(length / 2)
    way = torch.linspace(-length / 2, length / 2, 8 * (2 * radius) + 1)  # about eight positions per pixel
    return trace_kernel(way * math.cos(angle), way * math.sin(angle), radius)


def trace_kernel(x: torch.Tensor, y: torch.Tensor, radius: int) -> torch.Tensor:
    """The trace of a point: (K, K) with K = 2 * radius + 1 and sum 1.

    Args:
        x, y: its positions at equal times, in pixels from the centre, of shape (T,); each is distributed over the four
            nearest pixels.
        radius: the largest distance from the centre along an axis.
    """
    pixels = torch.arange(-radius, radius + 1)
    rows, columns = F.relu(1 - (y[:, None] - pixels).abs()), F.relu(1 - (x[:, None] - pixels).abs())
    kernel = rows.T @ columns
    return kernel / kernel.sum()


def convolve(image: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Convolves (C, H, W) with a kernel (K, K), K odd; beyond the borders, the outermost pixels are repeated."""
    radius = kernel.shape[0] // 2
    padded = F.pad(image[:, None], (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(padded, kernel.flip(0, 1)[None, None])[:, 0]
