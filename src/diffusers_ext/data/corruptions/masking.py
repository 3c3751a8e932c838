"""Hiding a part of an image: what is hidden becomes noise, what is left stays as it is."""

from collections.abc import Sequence

import numpy as np
import torch

from diffusers_ext.data.corruptions.corruption import Corruption
from diffusers_ext.data.corruptions.masks import SIDES, mask_generators, rectangles_mask, side_mask, stroke_mask
from diffusers_ext.data.corruptions.options import check_names, check_number, check_range


def inpainting(
    images: torch.Tensor,
    draw,
    *,
    area: float | tuple[float, float] = (0.1, 0.4),
    stroke_probability: float = 0.6,
    max_rectangles: int = 5,
) -> Corruption:
    """Holes: 60% free-form strokes, 40% one to five rectangles, over 10-40% of the image, filled with normal noise.

    Saharia et al. 2022 ("Palette"), appendix on inpainting.

    Args:
        images: (N, C, H, W) in [-1, 1].
        draw: of the masks and the noise.
        area: the smallest and the largest share of the pixels that is hidden, in 0.001..0.95; uniform between.
        stroke_probability: how often strokes are drawn, rather than rectangles.
        max_rectangles: their number is uniform from 1 to this.

    Raises:
        ValueError: for impossible options, or an `area` that the images have not.
    """
    area = check_range("area", area, 0.001, 0.95)
    check_number("stroke_probability", stroke_probability)
    check_range("stroke_probability", stroke_probability, 0, 1)
    if not isinstance(max_rectangles, int) or max_rectangles < 1:
        raise ValueError(f"max_rectangles must be a whole number from 1 on, not {max_rectangles!r}")
    size = images.shape[-2:]
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
    """Lost sides: half of the image beyond one side or around the centre is gone, filled with normal noise.

    Saharia et al. 2022 ("Palette"), appendix on uncropping: one side, any, or all four, with equal probability.

    Args:
        images: (N, C, H, W) in [-1, 1].
        draw: of the sides and the noise.
        sides: what can be lost, one of these for each image: "one" (any one side), "all", or sides by name, joined by
            "+": "left", "left+right", "top+left" ...
        area: the share of the image that is lost.

    Raises:
        ValueError: for other names of sides, an area outside (0, 1), or images with nothing to lose.
    """
    check_number("area", area)
    choices = [_parse_sides(choice) for choice in check_names("sides", sides)]
    if not choices or not 0 < area < 1:
        raise ValueError(f"uncropping needs sides and an area between 0 and 1, not {sides!r} and {area!r}")
    chosen, side = draw.integers(len(choices)).tolist(), draw.integers(len(SIDES)).tolist()
    lost = [choices[choice] or {SIDES[one]} for choice, one in zip(chosen, side, strict=True)]
    return hide(images, [side_mask(*images.shape[-2:], sides, area) for sides in lost], draw)


def _parse_sides(choice: str) -> set[str]:
    """The sides that a name stands for; none for any one."""
    if choice == "one":
        return set()
    sides = set(SIDES) if choice == "all" else set(choice.split("+"))
    if not sides <= set(SIDES):
        raise ValueError(f"sides are one, all, or of {', '.join(SIDES)}, joined by '+', not {choice!r}")
    return sides


def hide(images: torch.Tensor, masks: Sequence[np.ndarray], draw) -> Corruption:
    """Standard normal noise in `images` (N, C, H, W) where `masks`, N of (H, W), are True."""
    mask = torch.from_numpy(np.stack(masks))[:, None].to(images.device)
    noise = draw.normal_like(images).to(images)
    return Corruption(torch.where(mask, noise, images), mask.to(images))
