"""Make images wider by uncropping again and again, and hide the seams."""

import math
from collections.abc import Callable
from typing import Any

import torch

from .checks import check_choice, check_positive_int, is_number
from .fills import fill_padding
from .masks import Box


def widen(
    images: torch.Tensor,
    width: int,
    side: str,
    window_width: int,
    uncrop: Callable[[torch.Tensor, Box], torch.Tensor],
    blend: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """
    Add windows at the ends of images, each of which shows half of what is there and makes as much again.

    Args:
        images (`torch.Tensor` of shape `(N, C, H, W)`): in `[0, 1]`.
        width (`int`): the width of the result.
        side (`str`): where to add pixels: `"left"`, `"right"` or `"both"`, which is the same number at either end.
        window_width (`int`): the width of a window.
        uncrop (`Callable`): `uncrop(images, padding)` makes the pixels of padding `(left, top, right, bottom)`.
        blend (`Callable`): `blend(new, shown)` makes new columns go on from the shown ones, which end at the seam.

    Returns:
        `torch.Tensor` of shape `(N, C, H, width)`: it contains the images unchanged.
    """
    num_new = window_width // 2
    num_shown = window_width - num_new
    missing = width - images.shape[3]
    missing_left = {"both": missing // 2, "left": missing, "right": 0}[side]
    for kept in kept_columns(missing_left, num_new):
        shown = images[..., :num_shown]
        window = uncrop(shown, (num_new, 0, 0, 0))
        new = blend(window[..., :num_new].flip(3), shown.flip(3)).flip(3)
        images = torch.cat([new[..., num_new - kept :], images], dim=3)
    for kept in kept_columns(missing - missing_left, num_new):
        shown = images[..., -num_shown:]
        window = uncrop(shown, (0, 0, num_new, 0))
        new = blend(window[..., num_shown:], shown)
        images = torch.cat([images, new[..., :kept]], dim=3)
    return images


def kept_columns(missing: int, num_new: int) -> list[int]:
    """
    How many of its `num_new` columns each window adds to a panorama that lacks `missing` columns.

    The network saw the outermost quarter from one side only, and often draws a line there: the next window makes these
    columns again.
    """
    step = num_new - num_new // 4
    windows = max(math.ceil((missing - num_new) / step), 0)
    return [step] * windows + [missing - step * windows] * (missing > 0)


def blend_seam(new: torch.Tensor, shown: torch.Tensor, width: float) -> torch.Tensor:
    """
    Make new columns go on in colour from the shown ones.

    The difference of colour at the seam is added to the new columns and fades with the distance, fine differences
    sooner than coarse ones: this solves the screened Poisson equation (Bhat et al. 2008, "Fourier analysis of the 2D
    screened Poisson equation for gradient domain problems") for the gradients of the new columns.

    Args:
        new (`torch.Tensor` of shape `(N, C, H, W)`): in `[0, 1]`, the column at the seam first.
        shown (`torch.Tensor` of shape `(N, C, H, V)`): the columns before them, the one at the seam last.
        width (`float`): the distance in pixels within which the coarsest difference fades by e; 0 adds nothing.

    Returns:
        `torch.Tensor` of shape `(N, C, H, W)`: the new columns, in `[0, 1]`.
    """
    if width == 0:
        return new
    # A mirrored column is periodic: its cosines of k per pixel fade by exp(-sqrt(k^2 + 1 / width^2)) each pixel.
    step = shown[..., -1:] - new[..., :1]
    waves = torch.fft.rfft(torch.cat([step, step.flip(2)], dim=2), dim=2)
    frequencies = 2 * math.pi * torch.fft.rfftfreq(2 * new.shape[2], device=new.device)
    distance = torch.arange(1, new.shape[3] + 1, device=new.device)
    fading = torch.exp(-(frequencies.square() + 1 / width**2).sqrt()[:, None] * distance)
    return (new + torch.fft.irfft(waves * fading, 2 * new.shape[2], dim=2)[..., : new.shape[2], :]).clamp(0, 1)


def blend_mirrored(new: torch.Tensor, shown: torch.Tensor, width: float) -> torch.Tensor:
    """
    As [`blend_seam`], and textures go on too: new columns pass from mirrored ones into what the network made.

    Args:
        new (`torch.Tensor` of shape `(N, C, H, W)`): in `[0, 1]`, the column at the seam first.
        shown (`torch.Tensor` of shape `(N, C, H, V)`): the columns before them, the one at the seam last.
        width (`float`): as in [`blend_seam`]; mirrored columns fade by e within half this distance.
    """
    new = blend_seam(new, shown, width)
    if width == 0:
        return new
    mirrored, _ = fill_padding(shown, (0, 0, new.shape[3], 0), is_mirrored=True)
    share = torch.exp(-torch.arange(1, new.shape[3] + 1, device=new.device) / (width / 2))
    return new.lerp(mirrored[..., shown.shape[3] :], share)


def check_panorama(image_width: int, width: Any, side: Any, window_width: Any, blend_width: Any):
    """Refuses arguments with which [`widen`] cannot make images of `image_width` wider."""
    check_positive_int("width", width)
    check_choice("side", side, ("both", "left", "right"))
    check_positive_int("window_width", window_width)
    if not is_number(blend_width) or blend_width < 0:
        raise ValueError(f"`blend_width` must be a number of pixels, 0 or more, but is {blend_width!r}.")
    if width < image_width:
        raise ValueError(f"`width` must be at least the image's width, {image_width}, but is {width}.")
    num_shown = window_width - window_width // 2
    if image_width < num_shown or window_width < 2:
        raise ValueError(
            f"The image must be at least {num_shown} pixels wide, half a window, but is {image_width}: pass a "
            "smaller `window_width`."
        )
