"""Soft edges: edges with their strength."""

import torch

from diffusers_ext.data.conditions.slopes import brightness, slopes, smooth


def soft_edges(images: torch.Tensor, *, sigma: float = 1.0) -> torch.Tensor:
    """Soft edges: the slope of the brightness, from black to white at the steepest place of the image.

    Args:
        images: (N, 1 or 3, H, W) in [-1, 1].
        sigma: the standard deviation of the smoothing, in pixels.

    Returns:
        (N, 3, H, W) in [-1, 1]; black where the image is flat.

    Raises:
        ValueError: for a negative sigma, or another number of channels.
    """
    if not sigma >= 0:
        raise ValueError(f"soft_edges needs sigma >= 0, not {sigma!r}")
    along_y, along_x = slopes(smooth(brightness(images), sigma))
    steepness = (along_y.square() + along_x.square()).sqrt()
    steepest = steepness.amax(dim=(1, 2, 3), keepdim=True)
    # Slopes below one level per pixel come from rounding, not from edges.
    strength = torch.where(steepest > 8 / 255, steepness / steepest, 0.0)
    return (2 * strength - 1).float().expand(-1, 3, -1, -1)
