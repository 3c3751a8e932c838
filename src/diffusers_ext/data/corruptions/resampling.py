"""Making images smaller and larger again."""

import torch
import torch.nn.functional as F

from diffusers_ext.data.corruptions.corruption import Corruption
from diffusers_ext.data.corruptions.levels import from_levels, round_levels, to_levels
from diffusers_ext.data.corruptions.options import check_number


_FILTERS = ("bicubic", "bilinear", "area")


def super_resolution(
    images: torch.Tensor, draw, *, factor: float = 4, downsampling: str = "bicubic", antialias: bool = True
) -> Corruption:
    """Fewer pixels: made smaller by a factor, and brought back to size by bicubic interpolation, as SR3 does.

    With the defaults this is what Pillow's `image.resize(small, BICUBIC).resize(full, BICUBIC)` gives, with at most a
    level in a thousand off by one.

    Args:
        images: (N, C, H, W) in [-1, 1].
        draw: not used, as nothing is random here.
        factor: the small image has round(H / factor) by round(W / factor) pixels.
        downsampling: bicubic, bilinear or area (the mean of the pixels that become one).
        antialias: whether bicubic and bilinear average over all pixels that become one, as Pillow does, rather than
            over the nearest 4 or 2 per axis, as OpenCV does.

    Raises:
        ValueError: for a factor below 1 or one that leaves no pixel, or another filter.
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
    """Resize (N, C, h, w) in 0..255 to `size`, one axis after the other, rounding after each: Pillow's way.

    Args:
        levels: whole numbers, float32.
        size: (height, width).
        mode, antialias: of `torch.nn.functional.interpolate`; area has no `antialias`.
    """
    keywords = {} if mode == "area" else {"antialias": antialias}
    for step in ((levels.shape[-2], size[1]), size):
        levels = round_levels(F.interpolate(levels, size=step, mode=mode, **keywords))
    return levels
