"""The similarity of images to the true ones: PSNR compares single pixels, SSIM compares windows of pixels."""

from collections.abc import Callable
from functools import partial

import torch

from diffusers_ext.metrics.arrays import check_image_pair, row_blocks


PEAK = 255

SSIM_WINDOW_SIZE = 11
SSIM_SIGMA = 1.5
SSIM_CONSTANTS = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2

# How many values of images are measured at once: filtering is twice as fast when they fit into a processor's cache.
BLOCK_ELEMENTS = 2**16


def psnr(truth: torch.Tensor, restored: torch.Tensor) -> torch.Tensor:
    """The peak signal-to-noise ratio of each image, 10 log10(255^2 / MSE) over all its values, as in scikit-image.

    Args:
        truth, restored (`torch.Tensor` of shape (N, C, H, W)): uint8, or floats in [-1, 1], which are not rounded.

    Returns:
        `torch.Tensor` of shape (N,): float64 decibels on the CPU; infinite for equal images.

    Raises:
        ValueError: for images of different shapes, and values out of range.
    """
    return _blockwise(_psnr, truth, restored)


def ssim(truth: torch.Tensor, restored: torch.Tensor, window_size: int = SSIM_WINDOW_SIZE) -> torch.Tensor:
    """The structural similarity of each image (Wang et al. 2004); it is at most 1, the value of equal images.

    Means and (population) variances are computed for each channel in a Gaussian window with sigma 1.5, at every
    position where the window fits into the image. The index is averaged over positions and channels. The result
    equals scikit-image's `structural_similarity` with `gaussian_weights=True, use_sample_covariance=False`.
    torchmetrics also counts windows that reach over the (mirrored) border, so its values differ.

    Args:
        truth, restored: see [`psnr`].
        window_size (`int`): an odd number. Images with a side of fewer than 11 pixels need a smaller window.

    Returns:
        `torch.Tensor` of shape (N,): float64 on the CPU.

    Raises:
        ValueError: for images of different shapes or smaller than the window, values out of range, and an even window.
    """
    if window_size < 3 or window_size % 2 == 0:
        raise ValueError(f"The window of SSIM must be an odd number of at least 3 pixels, not {window_size}.")
    check_image_pair(truth, restored)
    height, width = truth.shape[2:]
    if min(height, width) < window_size:
        raise ValueError(
            f"The window of SSIM, {window_size} pixels, does not fit into images of {height}x{width}: "
            "choose a smaller odd one."
        )
    return _blockwise(partial(_ssim, window=_gaussian_window(window_size)), truth, restored)


def _blockwise(measure: Callable, truth: torch.Tensor, restored: torch.Tensor) -> torch.Tensor:
    """Applies `measure` to blocks of images, as levels from 0 to 255 in float64 on the CPU."""
    check_image_pair(truth, restored)
    blocks = row_blocks(len(truth), truth[0].numel(), BLOCK_ELEMENTS)
    return torch.cat([measure(_as_levels(truth[rows]), _as_levels(restored[rows])) for rows in blocks])


def _as_levels(images: torch.Tensor) -> torch.Tensor:
    levels = images.cpu().double()
    return levels if images.dtype == torch.uint8 else (levels + 1) * (PEAK / 2)


def _psnr(truth: torch.Tensor, restored: torch.Tensor) -> torch.Tensor:
    return 10 * torch.log10(PEAK**2 / (truth - restored).square().mean(dim=(1, 2, 3)))


def _ssim(truth: torch.Tensor, restored: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    moments = torch.stack([truth, restored, truth.square(), restored.square(), truth * restored])
    mean_x, mean_y, square_x, square_y, product = _filter(moments, window)
    variances = square_x - mean_x.square() + square_y - mean_y.square()
    covariance = product - mean_x * mean_y
    c1, c2 = SSIM_CONSTANTS
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    contrast_and_structure = (2 * covariance + c2) / (variances + c2)
    return (luminance * contrast_and_structure).mean(dim=(1, 2, 3))


def _gaussian_window(size: int) -> torch.Tensor:
    distances = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    window = torch.exp(-distances.square() / (2 * SSIM_SIGMA**2))
    return window / window.sum()


def _filter(maps: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """Weighted means of (..., H, W) in all windows inside of the image: (..., H - size + 1, W - size + 1)."""
    # A sum of shifted maps: a convolution in float64 is several times slower.
    for dim in (-2, -1):
        length = maps.shape[dim] - len(window) + 1
        total = torch.zeros_like(maps.narrow(dim, 0, length))
        for offset, weight in enumerate(window.tolist()):
            total.add_(maps.narrow(dim, offset, length), alpha=weight)
        maps = total
    return maps
