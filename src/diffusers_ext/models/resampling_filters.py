"""Low-pass filters around the convolutions that double or halve images, so that no pixel is favoured."""

import torch
import torch.nn.functional as F


def normalized_taps(taps: tuple[float, ...]) -> torch.Tensor:
    """The taps of a filter along one side, which sum to 1.

    Raises:
        ValueError: if there are none, or if they sum to 0.
    """
    if len(taps) == 0 or sum(taps) == 0:
        raise ValueError(f"`resample_filter` must be numbers that do not sum to 0, but is {tuple(taps)}.")
    return torch.tensor([tap / sum(taps) for tap in taps])


def blur_images(
    images: torch.Tensor, taps: torch.Tensor, before: int, after: int, stride: int = 1, gain: float = 1.0
) -> torch.Tensor:
    """Images `(N, C, H, W)` convolved with the filter in both directions.

    Args:
        before, after (`int`): zeros at the first and behind the last pixel of each side; less than 0 removes pixels.
        stride (`int`): every which pixel is kept.
        gain (`float`): a factor of the result.
    """
    kernel = (torch.outer(taps, taps) * gain).flip(0, 1)[None, None].expand(images.shape[1], 1, -1, -1)
    if before == after >= 0:  # much faster than padding before
        return F.conv2d(images, kernel, padding=before, stride=stride, groups=images.shape[1])
    images = F.pad(images, [before, after, before, after])
    return F.conv2d(images, kernel, stride=stride, groups=images.shape[1])


def double_images(images: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """Images `(N, C, H, W)` with zeros between their pixels, filtered: `(N, C, 2H, 2W)` of the same brightness."""
    kernel = (torch.outer(taps, taps) * 4)[None, None].expand(images.shape[1], 1, -1, -1)
    doubled = F.conv_transpose2d(images, kernel, stride=2, groups=images.shape[1])
    first = len(taps) - 1 - (len(taps) + 1) // 2  # the pixels too many at both ends
    last = len(taps) - 2 - first
    return F.pad(doubled, [-first, -last, -first, -last])


def halve_images(images: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """Every second pixel of filtered images `(N, C, H, W)`: `(N, C, H/2, W/2)`."""
    return blur_images(images, taps, (len(taps) - 1) // 2, (len(taps) - 2) // 2, stride=2)
