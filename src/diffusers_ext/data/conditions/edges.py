"""Edges that say how strong they are."""

import torch

from diffusers_ext.data.conditions.gradients import brightness, slopes, smooth


def soft_edges(images: torch.Tensor, *, sigma: float = 1.0) -> torch.Tensor:
    """Soft edges: how steep brightness is, from black to the white of the steepest place of the image.

    Args:
        images: (N, 1 or 3, H, W) in [-1, 1].
        sigma: the standard deviation of the smoothing before, in pixels.

    Returns:
        (N, 3, H, W) in [-1, 1]; black where an image is flat.

    Raises:
        ValueError: for a negative sigma, or another number of channels.
    """
    if not sigma >= 0:
        raise ValueError(f"soft_edges needs a sigma from 0 on, not {sigma!r}")
    along_y, along_x = slopes(smooth(brightness(images), sigma))
    steepness = (along_y.square() + along_x.square()).sqrt()
    steepest = steepness.amax(dim=(1, 2, 3), keepdim=True)
    # What is below a level per pixel is rounding, and no edge.
    strength = torch.where(steepest > 8 / 255, steepness / steepest, 0.0)
    return (2 * strength - 1).float().expand(-1, 3, -1, -1)
