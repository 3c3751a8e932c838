"""Predict large images in overlapping tiles, which are blended (MultiDiffusion: Bar-Tal et al. 2023)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from .checks import check_multiple, check_positive_int, is_integer


@dataclass(frozen=True)
class Tiling:
    """Square tiles of `size` pixels that overlap by `overlap` or more, `batch_size` of them in a forward pass."""

    size: int
    overlap: int
    batch_size: int


def check_tiling(
    tile_size: int | None, tile_overlap: int | None, tile_batch_size: int, multiple: int, smallest_side: int = 1
):
    """Refuses tiles that are none, that a network can't halve or that are smaller than `smallest_side`."""
    if tile_size is not None:
        check_positive_int("tile_size", tile_size)
        check_positive_int("tile_batch_size", tile_batch_size)
        check_multiple("`tile_size`", tile_size, multiple)
        if tile_size < smallest_side:
            raise ValueError(f"`tile_size` must be at least {smallest_side} for this network, but is {tile_size}.")
        if tile_overlap is not None and (not is_integer(tile_overlap) or not 0 <= tile_overlap < tile_size):
            raise ValueError(
                f"`tile_overlap` must be from 0 to less than `tile_size`, {tile_size}, but is {tile_overlap!r}."
            )
    elif tile_overlap is not None:
        raise ValueError("`tile_overlap` needs `tile_size`: without it, the image is processed as a whole.")


def round_up(side: int, tile_size: int | None, multiple: int, pixels_per_latent: int = 1) -> int:
    """A side of an image that a network, which halves images, can process: the next multiple of `multiple`."""
    # The network never sees the whole of a side that is longer than a tile, but an autoencoder does.
    is_tiled = tile_size is not None and side >= tile_size
    return side + -side % (pixels_per_latent if is_tiled else multiple)


def plan_tiling(
    tile_size: int | None,
    tile_overlap: int | None,
    tile_batch_size: int,
    height: int,
    width: int,
    pixels_per_latent: int = 1,
) -> Tiling | None:
    """
    The tiles of an image, which overlap by a quarter by default; `None` if it is predicted as a whole.

    Args:
        tile_size, tile_overlap (`int`, *optional*), tile_batch_size (`int`): in pixels, as users give them.
        height, width (`int`): of the image, or of its latents.
        pixels_per_latent (`int`): how many pixels a position of these has along each side.
    """
    if tile_size is None or max(height, width) * pixels_per_latent <= tile_size:
        return None
    overlap = tile_size // 4 if tile_overlap is None else tile_overlap
    return Tiling(tile_size // pixels_per_latent, overlap // pixels_per_latent, tile_batch_size)


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where evenly spread tiles begin that cover `length` and overlap by `overlap` or more."""
    if length <= tile:
        return [0]
    last = math.ceil((length - overlap) / (tile - overlap)) - 1
    return [round(i * (length - tile) / last) for i in range(last + 1)]


def predict_tiled(
    forward: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor],
    sample: torch.Tensor,
    class_labels: torch.Tensor | None,
    tiling: Tiling,
) -> torch.Tensor:
    """
    The output of a network for a large image, blended from its outputs for tiles with a Hann window as weight.

    Args:
        forward (`Callable`): the network, from tiles `(n, C, h, w)` and their labels `(n,)` to `(n, C', h, w)`.
        sample (`torch.Tensor` of shape `(N, C, H, W)`): the images.
        class_labels (`torch.Tensor` of shape `(N,)`, *optional*): their labels.
        tiling ([`Tiling`]): the tiles. One that is larger than the image is cut to its size.

    Returns:
        `torch.Tensor` of shape `(N, C', H, W)`.
    """
    height, width = sample.shape[2:]
    size = (min(height, tiling.size), min(width, tiling.size))
    starts = [tile_starts(length, tile, tiling.overlap) for length, tile in zip((height, width), size, strict=True)]
    tiles = [(..., slice(y, y + size[0]), slice(x, x + size[1])) for y in starts[0] for x in starts[1]]
    crops = torch.cat([sample[tile] for tile in tiles])
    labels = [None] * math.ceil(len(crops) / tiling.batch_size)
    if class_labels is not None:
        labels = class_labels.repeat(len(tiles)).split(tiling.batch_size)
    outputs = torch.cat([forward(*batch) for batch in zip(crops.split(tiling.batch_size), labels, strict=True)])

    # The window is centred on the pixels, so that no pixel has the weight 0.
    rows, columns = ((torch.arange(n, device=sample.device).add(0.5) * (math.pi / n)).sin() ** 2 for n in size)
    weight = rows[:, None] * columns
    total = outputs.new_zeros(len(sample), outputs.shape[1], height, width)
    weights = outputs.new_zeros(height, width)
    for tile, output in zip(tiles, outputs.split(len(sample)), strict=True):
        total[tile] += weight * output
        weights[tile] += weight
    return total / weights


def predict_bands(
    forward: Callable[[torch.Tensor], torch.Tensor], sample: torch.Tensor, tiling: Tiling, scale: int = 1
) -> Iterator[torch.Tensor]:
    """
    The output of a network that enlarges images by `scale`, as bands of finished rows from the top to the bottom.

    So only one row of tiles is in memory at a time. Where two tiles overlap, the outer quarter of each, in which a
    network sees too little, does not count, and between these quarters one tile fades into the other. If the network
    sees no further than a quarter of the overlap, the output is that for the whole image.

    Args:
        forward (`Callable`): the network, from tiles `(n, C, h, w)` to `(n, C', scale * h, scale * w)`.
        sample (`torch.Tensor` of shape `(N, C, H, W)`): the images.
        tiling ([`Tiling`]): the tiles. One that is larger than the image is cut to its size.
        scale (`int`): how many times as high and wide the output is.

    Yields:
        `torch.Tensor` of shape `(N, C', rows, scale * W)`: all bands together have `scale * H` rows.
    """
    height, width = sample.shape[2:]
    size = (min(height, tiling.size), min(width, tiling.size))
    tops, lefts = (
        tile_starts(length, tile, tiling.overlap) for length, tile in zip((height, width), size, strict=True)
    )
    columns = [fading_weights(left, size[1], width, tiling.overlap, scale, sample.device) for left in lefts]
    total = weights = None
    for top, next_top in zip(tops, [*tops[1:], height], strict=True):
        crops = torch.cat([sample[:, :, top : top + size[0], left : left + size[1]] for left in lefts])
        outputs = torch.cat([forward(batch) for batch in crops.split(tiling.batch_size)]).split(len(sample))
        if total is None:
            total = outputs[0].new_zeros(*outputs[0].shape[:2], size[0] * scale, width * scale)
            weights = total.new_zeros(total.shape[2:])
        rows = fading_weights(top, size[0], height, tiling.overlap, scale, sample.device)
        for left, column, output in zip(lefts, columns, outputs, strict=True):
            place = (..., slice(left * scale, (left + size[1]) * scale))
            weight = rows[:, None] * column
            total[place] += weight * output
            weights[place] += weight
        done = (next_top - top) * scale
        yield total[:, :, :done] / weights[:done]
        # The next row of tiles adds to what is not finished.
        total = torch.cat([total[:, :, done:], torch.zeros_like(total[:, :, :done])], dim=2)
        weights = torch.cat([weights[done:], torch.zeros_like(weights[:done])])


def fading_weights(start: int, tile: int, length: int, overlap: int, scale: int, device: torch.device) -> torch.Tensor:
    """The weights `(scale * tile,)` of a tile's pixels along an axis of `length`; they do not fade at its ends."""
    weights = torch.ones(tile * scale, device=device)
    if overlap > 0:
        ramp = ((torch.arange(tile * scale, device=device) + 0.5) / (overlap * scale) * 2 - 0.5).clamp(0, 1)
        if start > 0:
            weights = weights * ramp
        if start + tile < length:
            weights = weights * ramp.flip(0)
    return weights
