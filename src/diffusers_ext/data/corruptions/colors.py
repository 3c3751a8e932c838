"""The task "colorization": images without colour."""

import torch

from diffusers_ext.data.corruptions.corruption import Corruption
from diffusers_ext.data.corruptions.levels import from_levels, to_levels
from diffusers_ext.data.corruptions.option_checks import check_channels


# Rec. 601 luma, 0.299 R + 0.587 G + 0.114 B, in units of 1/65536 like Pillow; all sums are exact in float32.
_LUMA = (19595, 38470, 7471)


def colorization(images: torch.Tensor, draw) -> Corruption:
    """Colour to gray: Rec. 601 luma in three equal channels, exactly equal to Pillow's `convert("L")`.

    Args:
        images: RGB, (N, 3, H, W) in [-1, 1].
        draw: not used, because nothing is random here.

    Raises:
        ValueError: if the images do not have three channels.
    """
    check_channels("colorization", images, (3,))
    levels = to_levels(images)
    weighted = sum(weight * levels[:, channel] for channel, weight in enumerate(_LUMA))
    gray = ((weighted + 32768) / 65536).floor()
    return Corruption(from_levels(gray)[:, None].repeat(1, 3, 1, 1))
