"""The tasks "inpainting" and "uncropping": a part of an image is hidden by noise, the rest does not change."""

from collections.abc import Sequence

import numpy as np
import torch

from diffusers_ext.data.corruptions.corruption import Corruption
from diffusers_ext.data.corruptions.mask_shapes import (
    SIDES,
    center_mask,
    mask_generators,
    rectangles_mask,
    side_mask,
    stroke_mask,
)
from diffusers_ext.data.corruptions.option_checks import check_names, check_number, check_range


def inpainting(
    images: torch.Tensor,
    draw,
    *,
    area: float | tuple[float, float] = (0.1, 0.4),
    stroke_probability: float = 0.6,
    max_rectangles: int = 5,
    center: bool = False,
) -> Corruption:
    """Holes: 60% free-form strokes, 40% one to five rectangles, over 10-40% of the image, filled with normal noise.

    Saharia et al. 2022 ("Palette"), appendix on inpainting.

    Args:
        images: (N, C, H, W) in [-1, 1].
        draw: draws the masks and the noise.
        area: the smallest and the largest fraction of hidden pixels, in 0.001..0.95; uniform between them.
        stroke_probability: the probability of strokes instead of rectangles.
        max_rectangles: the number of rectangles is uniform from 1 to this number.
        center: whether the hole is always the centre instead, half of the height and of the width (Pathak et al. 2016,
            "Context Encoders", section 5.1).

    Raises:
        ValueError: for invalid options, or an `area` that is not possible for the images.
    """
    area = check_range("area", area, 0.001, 0.95)
    check_number("stroke_probability", stroke_probability)
    check_range("stroke_probability", stroke_probability, 0, 1)
    if not isinstance(max_rectangles, int) or max_rectangles < 1:
        raise ValueError(f"max_rectangles must be an integer of at least 1, not {max_rectangles!r}")
    size = images.shape[-2:]
    if center:
        return hide(images, [center_mask(*size)] * len(images), draw)
    masks = [
        stroke_mask(*size, area, generator)
        if generator.random() < stroke_probability
        else rectangles_mask(*size, area, max_rectangles, generator)
        for generator in mask_generators(draw)
    ]
    return hide(images, masks, draw)


def uncropping(
    images: torch.Tensor, draw, *, sides: str | Sequence[str] = ("one", "all"), area: float = 0.5
) -> Corruption:
    """Lost sides: half of the image, at one side or around the centre, is filled with normal noise.

    Saharia et al. 2022 ("Palette"), appendix on uncropping: one random side or all four sides, with equal probability.

    Args:
        images: (N, C, H, W) in [-1, 1].
        draw: draws the sides and the noise.
        sides: the choices, one of which is drawn for each image: "one" (any one side), "all", or names of sides joined
            by "+": "left", "left+right", "top+left" ...
        area: the fraction of the image that is lost.

    Raises:
        ValueError: for other names of sides, an area outside (0, 1), or images that are too small.
    """
    check_number("area", area)
    choices = [_parse_sides(choice) for choice in check_names("sides", sides)]
    if not choices or not 0 < area < 1:
        raise ValueError(f"uncropping needs sides and an area between 0 and 1, not {sides!r} and {area!r}")
    chosen, side = draw.host.integers(len(choices)).tolist(), draw.host.integers(len(SIDES)).tolist()
    lost = [choices[choice] or {SIDES[one]} for choice, one in zip(chosen, side, strict=True)]
    return hide(images, [side_mask(*images.shape[-2:], sides, area) for sides in lost], draw)


def _parse_sides(choice: str) -> set[str]:
    """The sides of a choice; empty for "one", any one side."""
    if choice == "one":
        return set()
    sides = set(SIDES) if choice == "all" else set(choice.split("+"))
    if not sides <= set(SIDES):
        raise ValueError(f"sides must be one, all, or some of {', '.join(SIDES)} joined by '+', not {choice!r}")
    return sides


def hide(images: torch.Tensor, masks: Sequence[np.ndarray], draw) -> Corruption:
    """Replaces pixels of `images` (N, C, H, W) by standard normal noise where `masks`, N arrays (H, W), are True."""
    mask = torch.from_numpy(np.stack(masks))[:, None].to(images.device)
    noise = draw.normal_like(images).to(images)
    return Corruption(torch.where(mask, noise, images), mask.to(images))
