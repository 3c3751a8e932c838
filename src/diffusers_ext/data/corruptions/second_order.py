"""The task "second_order": the degradations of photographs on the web, one after the other and twice."""

import torch

from diffusers_ext.data.corruptions.blur import deblurring
from diffusers_ext.data.corruptions.corruption import Corruption
from diffusers_ext.data.corruptions.jpeg import jpeg_restoration
from diffusers_ext.data.corruptions.levels import from_levels, to_levels
from diffusers_ext.data.corruptions.noise import denoising
from diffusers_ext.data.corruptions.option_checks import check_channels, check_range
from diffusers_ext.data.corruptions.resampling import resample


_FILTERS = ("area", "bilinear", "bicubic")


def second_order(
    images: torch.Tensor,
    draw,
    *,
    sigma: tuple[float, float] = (0.2, 2.0),
    resize: tuple[float, float] = (0.3, 1.5),
    noise: tuple[float, float] = (1.0, 25.0),
    quality: tuple[int, int] = (30, 95),
) -> Corruption:
    """Blur, resizing, noise and JPEG, one after the other, and all of it again with half of the strength.

    A simplified form of the second-order degradation of Wang et al. 2021 ("Real-ESRGAN", section 3.2), whose blur
    kernels and kinds of noise are more diverse, and which ends with a sinc filter. Each image is resized by a factor
    and a filter of its own, and in the end to its first size.

    Args:
        images: gray or RGB, (N, 1 or 3, H, W) in [-1, 1].
        draw: draws the strengths, all uniformly, the filters and the noise.
        sigma: the standard deviation of the Gaussian blur, in pixels.
        resize: the factor of the first resizing; that of the second is nearer to 1.
        noise: the standard deviation of the noise, in levels of 255.
        quality: of JPEG, 1 to 95.

    Raises:
        ValueError: for another number of channels, or a range that is reversed or out of its limits.
    """
    check_channels("second_order", images, (1, 3))
    resize = check_range("resize", resize, 0.01)
    ranges = {"sigma": check_range("sigma", sigma, 0.01), "noise": check_range("noise", noise, 0)}
    size, degraded = tuple(images.shape[-2:]), images
    for strength in (1.0, 0.5):
        blur, deviation = (tuple(max(0.01, bound * strength) for bound in ranges[name]) for name in ("sigma", "noise"))
        degraded = deblurring(degraded, draw, kernels=["gaussian"], sigma=blur).conditioning_image
        factors = [1 + (bound - 1) * strength for bound in resize]
        degraded = resized(degraded, draw, factors)
        degraded = denoising(degraded, draw, sigma=deviation).conditioning_image
        degraded = jpeg_restoration(degraded, draw, quality=quality, quality_scale=1e6).conditioning_image
    return Corruption(degraded.view(*images.shape[:2], *size))


def resized(images: torch.Tensor, draw, factors: list[float]) -> torch.Tensor:
    """Images resized by a random factor in `factors`, lowest and highest, and back: each by filters of its own."""
    shares, kinds = draw.host.uniform().tolist(), draw.host.integers(len(_FILTERS)).tolist()
    results = []
    for image, share, kind in zip(to_levels(images), shares, kinds, strict=True):
        factor = factors[0] + (factors[1] - factors[0]) * share
        size = tuple(max(1, round(side * factor)) for side in image.shape[-2:])
        small = resample(image[None], size, _FILTERS[kind])
        results.append(resample(small, tuple(image.shape[-2:])))
    return from_levels(torch.cat(results))
