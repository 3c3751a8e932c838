"""The task "jpeg_restoration": compression as JPEG."""

import io

import numpy as np
import torch
from PIL import Image

from diffusers_ext.data.corruptions.corruption import Corruption
from diffusers_ext.data.corruptions.levels import from_levels, to_levels
from diffusers_ext.data.corruptions.option_checks import check_channels, check_number, check_range


def jpeg_restoration(
    images: torch.Tensor, draw, *, quality: int | tuple[int, int] = (5, 30), quality_scale: float = 10.0
) -> Corruption:
    """JPEG of low quality: written and read by Pillow, with a quality Q of density ~ exp(-Q / 10) on 5..30.

    Saharia et al. 2022 ("Palette"), section 4. Chroma has half the resolution (4:2:0), which is Pillow's default.

    Args:
        images: gray or RGB, (N, 1 or 3, H, W) in [-1, 1].
        draw: draws the qualities.
        quality: the lowest and the highest Q, integers in 1..95, or one fixed number.
        quality_scale: the scale of the exponential distribution; a larger scale makes it more uniform.

    Raises:
        ValueError: for another number of channels, or invalid options.
    """
    check_channels("jpeg_restoration", images, (1, 3))
    qualities = sample_qualities(draw, quality, quality_scale)
    arrays = to_levels(images).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    decoded = np.stack([compress(array, q) for array, q in zip(arrays, qualities, strict=True)])
    return Corruption(from_levels(torch.from_numpy(decoded).permute(0, 3, 1, 2).contiguous().to(images)))


def sample_qualities(draw, quality: int | tuple[int, int], quality_scale: float) -> list[int]:
    """A random quality for each sample, with p(Q) ~ exp(-Q / quality_scale)."""
    lowest, highest = check_range("quality", quality, 1, 95)
    check_number("quality_scale", quality_scale)
    if not quality_scale > 0:
        raise ValueError(f"quality_scale must be positive, not {quality_scale!r}")
    if not (isinstance(lowest, int) and isinstance(highest, int)):
        raise ValueError(f"quality must be integers, not {quality!r}")
    cumulated = np.exp(-np.arange(highest - lowest + 1) / quality_scale).cumsum()
    # The inverse of the distribution function. Its last value, 1, is left out: only rounding could reach it.
    indices = np.searchsorted(cumulated[:-1] / cumulated[-1], draw.host.uniform().numpy(), side="right")
    return [lowest + int(index) for index in indices]


def compress(array: np.ndarray, quality: int) -> np.ndarray:
    """Compresses an image (H, W, 1 or 3) uint8 as JPEG and decodes it again."""
    file = io.BytesIO()
    Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(array.shape)
