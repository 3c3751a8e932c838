"""The task "super_resolution": images that are made smaller and larger again."""

import torch
import torch.nn.functional as F

from diffusers_ext.data.alpha import divide_by_alpha, has_alpha, weight_by_alpha
from diffusers_ext.data.corruptions.corruption import Corruption
from diffusers_ext.data.corruptions.levels import from_levels, round_levels, to_levels
from diffusers_ext.data.corruptions.option_checks import check_number


_FILTERS = ("bicubic", "bilinear", "area")


def super_resolution(
    images: torch.Tensor, draw, *, factor: float = 4, downsampling: str = "bicubic", antialias: bool = True
) -> Corruption:
    """Fewer pixels: images are made smaller by a factor and resized back by bicubic interpolation, as in SR3.

    With the defaults, the result is that of Pillow's `image.resize(small, BICUBIC).resize(full, BICUBIC)`, with at
    most one level in a thousand that differs by one.

    Args:
        images: (N, C, H, W) in [-1, 1].
        draw: not used, because nothing is random here.
        factor: the small image has round(H / factor) by round(W / factor) pixels.
        downsampling: bicubic, bilinear or area (the mean of the pixels that are merged).
        antialias: whether bicubic and bilinear average over all pixels that are merged, like Pillow, or only over the
            nearest 4 or 2 per axis, like OpenCV.

    Raises:
        ValueError: for a factor below 1 or larger than the shorter side, or another filter.
    """
    check_number("factor", factor)
    if downsampling not in _FILTERS:
        raise ValueError(f"downsampling must be one of {', '.join(_FILTERS)}, not {downsampling!r}")
    height, width = images.shape[-2:]
    if not 1 <= factor <= min(height, width):
        raise ValueError(
            f"the factor of super_resolution must be from 1 to {min(height, width)}, the shorter side of the images, "
            f"not {factor!r}"
        )
    small = resample(to_levels(images), (round(height / factor), round(width / factor)), downsampling, antialias)
    return Corruption(from_levels(resample(small, (height, width))))


def resample(
    levels: torch.Tensor, size: tuple[int, int], mode: str = "bicubic", antialias: bool = True
) -> torch.Tensor:
    """Resize (N, C, h, w) in 0..255 to `size` like Pillow: one axis after the other, with rounding after each.

    Colours are weighted by the alpha channel if there is one (2 or 4 channels).

    Args:
        levels: whole numbers, float32.
        size: (height, width).
        mode, antialias: see `torch.nn.functional.interpolate`; area has no `antialias`.
    """
    if has_alpha(levels):
        weighted = _interpolate(round_levels(weight_by_alpha(levels)), size, mode, antialias)
        return divide_by_alpha(weighted).floor()
    return _interpolate(levels, size, mode, antialias)


def _interpolate(levels: torch.Tensor, size: tuple[int, int], mode: str, antialias: bool) -> torch.Tensor:
    keywords = {} if mode == "area" else {"antialias": antialias}
    for step in ((levels.shape[-2], size[1]), size):
        levels = round_levels(F.interpolate(levels, size=step, mode=mode, **keywords))
    return levels
