"""Read masks: pictures, arrays, tensors and boxes that say where pixels have to be made."""

import logging
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from .checks import is_integer
from .images import ImageInput, fit_channels, read_image


Box = tuple[int, int, int, int]

HARD = 0.1  # how far from black and white a mask's pixels may be, for example after JPEG, and still count as these


def is_box(value: Any) -> bool:
    """Whether a value has the form `(left, top, right, bottom)`."""
    return isinstance(value, (list, tuple)) and len(value) == 4 and all(map(is_integer, value))


def read_masks(mask_image: ImageInput | Box | list, num_images: int, height: int, width: int) -> torch.Tensor:
    """
    Where pixels have to be made in each image.

    Args:
        mask_image: a mask of the size of the images, which is white, 1 or `True` where pixels have to be made (see
            [`read_mask`]); or a box `(left, top, right, bottom)`; or a list of one mask, box or list of boxes for each
            image. A list of boxes for a single image is one mask.
        num_images, height, width (`int`): of the images.

    Returns:
        `torch.Tensor` of shape `(num_images, 1, height, width)`: bool.

    Raises:
        ValueError: for anything else, and for a mask or a box that does not fit the images.
    """
    if isinstance(mask_image, (np.ndarray, torch.Tensor)) and mask_image.ndim == 4:
        mask_image = list(mask_image)
    one_per_image = isinstance(mask_image, (list, tuple)) and not is_box(mask_image)
    if one_per_image and num_images == 1 and all(map(is_box, mask_image)):
        one_per_image = False
    masks = list(mask_image) if one_per_image else [mask_image]
    if isinstance(mask_image, (list, tuple)) and not mask_image:
        raise ValueError("`mask_image` is empty: pass a mask, or a box (left, top, right, bottom).")
    if len(masks) not in (1, num_images):
        raise ValueError(f"`mask_image` must be one mask or {num_images}, one per image, but is {len(masks)}.")
    masks = [
        read_boxes(mask, height, width) if isinstance(mask, (list, tuple)) else read_mask(mask, height, width)
        for mask in masks
    ]
    masks = torch.stack(masks)
    if not masks.any():
        raise ValueError("`mask_image` selects no pixel: it must be `True` where pixels have to be made.")
    return masks.expand(num_images, -1, -1, -1)


def read_boxes(boxes: Box | list[Box], height: int, width: int) -> torch.Tensor:
    """The mask `(1, H, W)` of one box or several."""
    hidden = torch.zeros(1, height, width, dtype=torch.bool)
    for box in [boxes] if is_box(boxes) else boxes:
        if not is_box(box):
            raise ValueError(f"A box of `mask_image` must be (left, top, right, bottom), but is {box!r}.")
        left, top, right, bottom = box
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise ValueError(
                f"The box {tuple(box)} of `mask_image`, which is (left, top, right, bottom), does not lie in "
                f"the image of {width} x {height} pixels."
            )
        hidden[:, top:bottom, left:right] = True
    return hidden


def read_mask(mask: ImageInput, height: int, width: int) -> torch.Tensor:
    """
    The mask `(1, H, W)` of a picture, an array or a tensor.

    White is selected. Where a picture has no white, what is painted on black or on nothing is selected, whatever its
    colour; and of two values, 0 and another, the other one, so that a map of one label is a mask.

    Raises:
        ValueError: for a mask that does not tell what it selects, selects nothing (unless it is of bools, which a
            program may make for one of many images), or has another size.
    """
    is_bool = str(getattr(mask, "dtype", "")).split(".")[-1] == "bool"
    mask = read_image("mask_image", spread_labels(mask))
    if mask.shape[1:] != (height, width):
        raise ValueError(
            f"`mask_image` must have the size of the image, {width} x {height} pixels, but has {mask.shape[2]} x "
            f"{mask.shape[1]}."
        )
    if len(mask) > 4:
        fit_channels("mask_image", mask, 1)
    values = read_layer(mask[:-1], mask[-1:]) if len(mask) in (2, 4) else read_painting(mask)
    painted = values[values > 0]
    if painted.numel() > 0 and painted.min() == painted.max() and (painted.numel() < values.numel() or is_one(values)):
        values = (values > 0).float()
    selected = values >= 0.5
    if not selected.any() and not is_bool:
        raise ValueError(
            "`mask_image` selects no pixel: it must be white, 1 or `True` where pixels have to be made, but its "
            f"values go from {values.min():.3g} to {values.max():.3g} of 1; of a map of several labels, pass "
            "`labels == label`."
        )
    share = ((values > HARD) & (values < 1 - HARD)).float().mean().item()
    if share > 0:
        logging.getLogger(__name__).warning(
            f"`mask_image` is soft in {share:.1%} of its pixels: pixels from middle gray up are made, and the others "
            "are kept."
        )
    return selected


def spread_labels(mask: ImageInput) -> ImageInput:
    """A map of one label, of integers that are no bytes, as bools; anything else as it is."""
    is_array = isinstance(mask, (np.ndarray, torch.Tensor))
    if not is_array or str(mask.dtype).split(".")[-1] in ("bool", "uint8") or 0 in mask.shape:
        return mask
    if mask.is_floating_point() if torch.is_tensor(mask) else mask.dtype.kind not in "iu":
        return mask
    label = mask.max()
    return mask == label if label > 0 and ((mask == 0) | (mask == label)).all() else mask


def read_layer(colors: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """What a picture `(1 or 3, H, W)` with transparency selects: its white, or what is painted in one colour."""
    opaque = colors[:, alpha[0] >= 0.5]
    if alpha.min() == 1 or opaque.numel() == 0:
        return read_painting(colors) if alpha.min() == 1 else alpha
    values = fit_channels("mask_image", torch.cat([colors, alpha]), 1, background=0.0)
    is_flat = (opaque.amax(1) - opaque.amin(1)).max() <= HARD
    if not is_flat and (opaque.amax(0) - opaque.amin(0)).max() > HARD:
        raise ValueError(
            "`mask_image` has several colours and transparent pixels, and does not tell whether the painted or the "
            "erased pixels have to be made: pass one channel that is white there, such as `mask.getchannel('A')`."
        )
    return alpha if is_flat and opaque.min() < 1 else values


def read_painting(colors: torch.Tensor) -> torch.Tensor:
    """What a picture `(1 or 3, H, W)` selects, from 0 to 1: its white, or the brightest of the colours on black."""
    highest, lowest = colors.amax(0, keepdim=True), colors.amin(0, keepdim=True)
    has_color = (highest - lowest).max() > HARD
    if has_color and (highest <= HARD).any() and not (lowest >= 1 - HARD).any():
        return highest
    return fit_channels("mask_image", colors, 1)


def is_one(values: torch.Tensor) -> bool:
    """Whether all values are 1 as a byte."""
    return bool((values == torch.tensor(1.0) / 255).all())


def blend_hidden(made: torch.Tensor, images: torch.Tensor, hidden: torch.Tensor, seam_width: int = 0) -> torch.Tensor:
    """
    Images whose hidden pixels are made, and whose visible ones are kept.

    Args:
        made, images (`torch.Tensor` of shape `(N, C, H, W)`): what was made, and the images.
        hidden (`torch.Tensor` of shape `(N, 1, H, W)`): bool.
        seam_width (`int`): how far from hidden pixels visible ones fade into what was made: at the distance d, they
            have the weight d / (`seam_width` + 1).

    Returns:
        `torch.Tensor` of shape `(N, C, H, W)`.
    """
    weight, near = hidden.float(), hidden.float()
    for distance in range(1, seam_width + 1):
        near = F.max_pool2d(near, kernel_size=3, stride=1, padding=1)
        weight = torch.maximum(weight, near * (1 - distance / (seam_width + 1)))
    # A pixel of the weight 0 keeps its bits.
    return torch.where(weight > 0, torch.lerp(images, made, weight), images)
