"""The 256 levels of an image file.

What is degraded has been in a file, and comes out of one when a model is used: so it is rounded to what that file can
hold, and a model sees in training what it will see later.
"""

import torch


def to_levels(images: torch.Tensor) -> torch.Tensor:
    """[-1, 1] -> whole numbers from 0 to 255, float32; what lies outside becomes 0 or 255."""
    return round_levels((images.float() + 1) * 127.5)


def round_levels(levels: torch.Tensor) -> torch.Tensor:
    """The nearest whole number from 0 to 255, halves up as in Pillow."""
    return (levels + 0.5).floor().clamp(0, 255)


def from_levels(levels: torch.Tensor) -> torch.Tensor:
    """0..255 -> [-1, 1], float32; exactly the values of an image that was read from a file."""
    return levels / 127.5 - 1
