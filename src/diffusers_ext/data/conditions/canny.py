"""Canny's edge detector."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from diffusers_ext.data.conditions.slopes import brightness, slopes, smooth


def canny(
    images: torch.Tensor, *, sigma: float = 1.0, low_threshold: float = 0.1, high_threshold: float = 0.2
) -> torch.Tensor:
    """Canny's edges: thin white lines on black.

    Canny 1986, "A Computational Approach to Edge Detection", in the form of scikit-image's `feature.canny`: images are
    smoothed by a Gaussian, and their slopes computed by Sobel's filter. A pixel is a candidate if its slope is the
    largest across the edge (compared with interpolated neighbours) and above the low threshold. Candidates are
    connected in eight directions, and a connected line is kept if any of its pixels is above the high threshold.

    Args:
        images: (N, 1 or 3, H, W) in [-1, 1].
        sigma: the standard deviation of the smoothing, in pixels.
        low_threshold, high_threshold: the thresholds of the slope, in eighths of the range from black to white per
            pixel.

    Returns:
        (N, 3, H, W), -1 or 1.

    Raises:
        ValueError: for invalid options, or another number of channels.
    """
    if not sigma >= 0 or not 0 <= low_threshold <= high_threshold:
        raise ValueError(
            f"canny needs sigma >= 0 and 0 <= low_threshold <= high_threshold, not {sigma!r}, "
            f"{low_threshold!r} and {high_threshold!r}"
        )
    along_y, along_x = slopes(smooth(brightness(images), sigma))
    steepness = (along_y.square() + along_x.square()).sqrt()
    candidates = _is_ridge(along_y, along_x, steepness) & (steepness >= low_threshold) & (steepness > 0)
    edges = _connected(candidates, candidates & (steepness >= high_threshold))
    return torch.where(edges, 1.0, -1.0).expand(-1, 3, -1, -1)


def _is_ridge(along_y: torch.Tensor, along_x: torch.Tensor, steepness: torch.Tensor) -> torch.Tensor:
    """Whether no neighbour across the edge is steeper, (N, 1, H, W); never at the border of an image."""
    height, width = steepness.shape[-2:]
    padded = F.pad(steepness, (1, 1, 1, 1))

    def neighbour(down: int, right: int) -> torch.Tensor:
        return padded[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    is_steep = along_y.abs() >= along_x.abs()  # the direction across the edge is mainly vertical, not horizontal
    is_falling = along_y * along_x < 0  # up this direction leads to the right, not to the left
    # The neighbour in this direction is interpolated between the straight and the diagonal neighbour.
    smaller, larger = torch.minimum(along_y.abs(), along_x.abs()), torch.maximum(along_y.abs(), along_x.abs())
    share = torch.where(larger > 0, smaller / larger, 0.0)
    is_ridge = torch.ones_like(is_steep)
    for side in (1, -1):
        straight = torch.where(is_steep, neighbour(side, 0), neighbour(0, side))
        diagonal = torch.where(
            is_falling,
            torch.where(is_steep, neighbour(side, -side), neighbour(-side, side)),
            neighbour(side, side),
        )
        is_ridge &= diagonal * share + straight * (1 - share) <= steepness
    is_ridge[..., [0, -1], :] = False
    is_ridge[..., [0, -1]] = False
    return is_ridge


def _connected(candidates: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """The candidates (N, 1, H, W) that are connected to a seed, in any of eight directions."""
    within_an_image = np.zeros((3, 3, 3), dtype=int)
    within_an_image[1] = 1
    lines, count = ndimage.label(candidates[:, 0].cpu().numpy(), within_an_image)
    is_kept = np.zeros(count + 1, dtype=bool)
    is_kept[lines[seeds[:, 0].cpu().numpy()]] = True
    return torch.from_numpy(is_kept[lines])[:, None].to(candidates.device)
