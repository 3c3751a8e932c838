"""The 256 levels of an image file, which degraded images are rounded to.

A model that is in use reads degraded images from files. Rounding makes the degraded images of training equal to those.
"""

import torch


def to_levels(images: torch.Tensor) -> torch.Tensor:
    """[-1, 1] -> whole numbers from 0 to 255, float32; values outside become 0 or 255."""
    return round_levels((images.float() + 1) * 127.5)


def round_levels(levels: torch.Tensor) -> torch.Tensor:
    """The nearest whole numbers from 0 to 255; halves are rounded up, as in Pillow."""
    return (levels + 0.5).floor().clamp(0, 255)


def from_levels(levels: torch.Tensor) -> torch.Tensor:
    """0..255 -> [-1, 1], float32; exactly the values of an image that is read from a file."""
    return levels / 127.5 - 1
