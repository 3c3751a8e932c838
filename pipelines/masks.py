"""Read masks: pictures, arrays, tensors and boxes that say where pixels have to be made."""

from typing import Any

import numpy as np
import torch

from .checks import is_integer
from .images import ImageInput, fit_channels, read_image


Box = tuple[int, int, int, int]


def is_box(value: Any) -> bool:
    """Whether a value has the form `(left, top, right, bottom)`."""
    return isinstance(value, (list, tuple)) and len(value) == 4 and all(map(is_integer, value))


def read_masks(mask_image: ImageInput | Box | list, num_images: int, height: int, width: int) -> torch.Tensor:
    """
    Where pixels have to be made in each image.

    Args:
        mask_image: a mask of the size of the images, which is white, 1 or `True` where pixels have to be made; or a
            box `(left, top, right, bottom)`; or a list of one mask, box or list of boxes for each image. A list of
            boxes for a single image is one mask.
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
    return torch.stack(masks).expand(num_images, -1, -1, -1)


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
    """The mask `(1, H, W)` of a picture, an array or a tensor."""
    mask = read_image("mask_image", mask)
    if mask.max() == torch.tensor(1.0) / 255:
        mask = mask * 255  # Segmentations are often stored as bytes 0 and 1 instead of 0 and 255.
    # Pixels that are transparent in a drawing of the mask were not painted.
    mask = fit_channels("mask_image", mask, 1, background=0.0)
    if mask.shape[1:] != (height, width):
        raise ValueError(
            f"`mask_image` must have the size of the image, {width} x {height} pixels, but has {mask.shape[2]} x "
            f"{mask.shape[1]}."
        )
    return mask >= 0.5
