"""Fill hidden pixels from the visible ones: smoothly, in horizontal layers, or with mirrored textures."""

import torch
from torch.nn import functional as F

from .masks import Box, is_box


def smooth_fill(images: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """
    Fill hidden pixels so that they pass smoothly from one edge of the visible ones to the other.

    The result is close to the solution of Laplace's equation, relaxed from coarse to fine: the cascadic multigrid
    method of Bornemann and Deuflhard 1996.

    Args:
        images (`torch.Tensor` of shape `(N, C, H, W)`): of any range. An image without visible pixels becomes 0.
        hidden (`torch.Tensor` of shape `(N, 1, H, W)`): bool, or above 0 where pixels are hidden.

    Returns:
        `torch.Tensor` of shape `(N, C, H, W)`: visible pixels are unchanged.
    """
    visible = (hidden <= 0).to(images)
    if visible.all():
        return images
    levels = [(images * visible, visible)]
    while max(levels[-1][1].shape[2:]) > 1:
        levels.append(visible_means(*levels[-1], (2, 2)))
    filled, _ = levels.pop()
    for images, visible in reversed(levels):
        filled = F.interpolate(filled, images.shape[2:], mode="bilinear", align_corners=False)
        filled = torch.where(visible > 0, images, filled)
        for _ in range(8):
            means = F.avg_pool2d(F.pad(filled, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
            filled = torch.where(visible > 0, images, means)
    return filled


def layered_fill(images: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """
    As [`smooth_fill`], but colours reach four times as far sideways as up and down.

    Photographs consist of horizontal layers, such as ground and sky.
    """
    visible = (hidden <= 0).to(images)
    small, visible = visible_means(images * visible, visible, (1, 4))
    filled = F.interpolate(smooth_fill(small, 1 - visible), images.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(hidden > 0, filled, images)


def mirror_fill(images: torch.Tensor, hidden: torch.Tensor, share: float = 1.0) -> torch.Tensor:
    """
    Mirror images again and again at the sides of the box around all visible pixels, so that textures go on.

    Hidden pixels inside the box are filled by [`smooth_fill`] first.

    Args:
        images (`torch.Tensor` of shape `(N, C, H, W)`): of any range. An image without visible pixels becomes 0.
        hidden (`torch.Tensor` of shape `(N, 1, H, W)`): bool, or above 0 where pixels are hidden.
        share (`float`): the part of the box, counted from each side, that is mirrored. A small part has no whole
            objects in it, which would be seen twice.

    Returns:
        `torch.Tensor` of shape `(N, C, H, W)`: visible pixels are unchanged.
    """
    visible = (hidden <= 0)[:, 0]
    rows, columns = (mirrored_positions(visible.any(dim=dim), share) for dim in (2, 1))
    index = torch.arange(len(images), device=images.device)
    images = smooth_fill(images, hidden)
    return images[index[:, None, None], :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def mirrored_positions(visible: torch.Tensor, share: float) -> torch.Tensor:
    """
    For each position in a line, the position that is seen there when the line is mirrored.

    The mirrors stand at the first and the last visible position.

    Args:
        visible (`torch.Tensor` of shape `(N, L)`): bool.
        share (`float`): the part of the visible length, counted from each mirror, that is repeated.

    Returns:
        `torch.Tensor` of shape `(N, L)`: integers in `[0, L)`.
    """
    positions = torch.arange(visible.shape[1], device=visible.device)
    first = visible.int().argmax(dim=1, keepdim=True)
    last = visible.shape[1] - 1 - visible.flip(1).int().argmax(dim=1, keepdim=True)
    length = ((last - first + 1) * share).ceil().long()
    steps = (torch.maximum(first - positions, positions - last) - 1) % (2 * length)
    steps = torch.minimum(steps, 2 * length - 1 - steps)
    return torch.where(positions < first, first + steps, torch.where(positions > last, last - steps, positions))


def visible_means(
    images: torch.Tensor, visible: torch.Tensor, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Shrink images by the mean of the visible pixels in each block.

    Args:
        images (`torch.Tensor` of shape `(N, C, H, W)`): 0 where pixels are hidden.
        visible (`torch.Tensor` of shape `(N, 1, H, W)`): 1 where pixels are visible, 0 elsewhere.
        size (`tuple[int, int]`): the rows and columns of a block, which has four pixels.

    Returns:
        `tuple`: the means, which are 0 for blocks without visible pixels, and 1 where a block has visible pixels, 0
        elsewhere.
    """
    sums, shares = (F.avg_pool2d(x, size, ceil_mode=True, count_include_pad=False) for x in (images, visible))
    return sums / shares.clamp(min=1 / 4), (shares > 0).to(images)


def fill_padding(images: torch.Tensor, padding: Box, is_mirrored: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Pad images, and fill the padding with a first guess of what is there.

    Args:
        images (`torch.Tensor` of shape `(N, C, H, W)`): of any range.
        padding (`tuple[int, int, int, int]`): the pixels to add at the left, top, right and bottom.
        is_mirrored (`bool`): whether to fill by [`mirror_fill`] of the outermost quarters, or by [`layered_fill`].

    Returns:
        `tuple`: the padded images, and where they are padded, bool `(N, 1, top + H + bottom, left + W + right)`.

    Raises:
        ValueError: if `padding` has another form or adds nothing.
    """
    if not is_box(padding) or min(padding) < 0 or max(padding) == 0:
        raise ValueError(f"`padding` must be (left, top, right, bottom) pixels to add, but is {padding!r}.")
    left, top, right, bottom = padding
    images, visible = (F.pad(x, (left, right, top, bottom)) for x in (images, torch.ones_like(images[:, :1])))
    hidden = visible == 0
    filled = mirror_fill(images, hidden, share=1 / 4) if is_mirrored else layered_fill(images, hidden)
    return filled, hidden


def black_fill(images: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Images `(N, C, H, W)` in `[-1, 1]` that are black where they are hidden."""
    return images.masked_fill(hidden > 0, -1.0)


SHOWN_FILLS = {"smooth": smooth_fill, "mirror": mirror_fill, "black": black_fill}
