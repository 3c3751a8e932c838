"""The two forms of an image: uint8 from 0 to 255, as in a file, and values in [-1, 1], as networks see them."""

import torch


def to_pixel_values(images: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 -> float32 in [-1, 1], of the same shape."""
    return images.to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1)


def as_uint8(images: torch.Tensor) -> torch.Tensor:
    """Images in [-1, 1], or uint8 already, as uint8 on the same device."""
    return images if images.dtype == torch.uint8 else (images.float() + 1).mul(127.5).round().to(torch.uint8)


def as_pixel_values(images: torch.Tensor) -> torch.Tensor:
    """Images (N, C, H, W), uint8 or in [-1, 1] already, as float32 in [-1, 1].

    Raises:
        ValueError: for another shape, and for values outside [-1, 1].
    """
    if images.ndim != 4:
        raise ValueError(f"images must have the shape (N, C, H, W), not {tuple(images.shape)}.")
    if images.dtype == torch.uint8:
        return images.float() / 127.5 - 1
    images = images.float()
    if not (images.abs() <= 1).all():
        raise ValueError("images must be uint8, or in [-1, 1].")
    return images
