"""Label maps as colour images."""

from collections.abc import Sequence

import torch

from diffusers_ext.data.corruptions.levels import from_levels, to_levels


def default_palette() -> list[tuple[int, int, int]]:
    """The 256 colours of Pascal VOC, which are easy to distinguish: the bits of a label go to alternate channels."""
    palette = []
    for label in range(256):
        colour = [0, 0, 0]
        for bit in range(8):  # bits 0, 3 and 6 are the highest bits of red, and so on
            colour[bit % 3] |= (label >> bit & 1) << (7 - bit // 3)
        palette.append(tuple(colour))
    return palette


def segmentation(label_maps: torch.Tensor, *, palette: Sequence[Sequence[int]] | None = None) -> torch.Tensor:
    """Label maps as colour images: class k becomes colour k of a palette.

    Args:
        label_maps: (N, C, H, W) in [-1, 1], like images: level k of 255 in the first channel is class k.
        palette: the colours, (red, green, blue) from 0 to 255 each; by default those of Pascal VOC.

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
