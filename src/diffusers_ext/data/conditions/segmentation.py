"""Label maps as colour images."""

from collections.abc import Sequence

import torch

from diffusers_ext.data.corruptions.levels import from_levels, to_levels
from diffusers_ext.data.label_colors import default_palette


def segmentation(label_maps: torch.Tensor, *, palette: Sequence[Sequence[int]] | None = None) -> torch.Tensor:
    """Label maps as colour images: class k becomes colour k of a palette.

    Args:
        label_maps: (N, C, H, W) in [-1, 1], like images: level k of 255 in the first channel is class k.
        palette: the colours, (red, green, blue) from 0 to 255 each; by default the colours of Pascal VOC.

    Returns:
        (N, 3, H, W) in [-1, 1].

    Raises:
        ValueError: if the palette is invalid, or has no colour for a class.
    """
    colours = torch.tensor(default_palette() if palette is None else palette, dtype=torch.float32)
    if colours.ndim != 2 or colours.shape[1] != 3 or not 0 <= colours.min() <= colours.max() <= 255:
        raise ValueError("a palette must have a colour for each class: red, green and blue, from 0 to 255")
    labels = to_levels(label_maps[:, 0]).long()
    if labels.max() >= len(colours):
        raise ValueError(f"the palette has {len(colours)} colours, too few for class {labels.max()}")
    return from_levels(colours.to(labels.device)[labels]).permute(0, 3, 1, 2).contiguous()
