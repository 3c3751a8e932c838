"""The loss between two points that should be the same end of a trajectory."""

import torch


def pseudo_huber_loss(output: torch.Tensor, target: torch.Tensor, width: float = 0.03) -> torch.Tensor:
    """sqrt(d**2 + width**2) - width, d the root mean square of the difference (Song and Dhariwal 2023, eq. 5).

    It is quadratic below `width` and linear above, so that samples far from their target count less than by a squared
    error.

    Args:
        output, target (`torch.Tensor` of shape (N, C, H, W)): images in [-1, 1], or latents of unit variance.
        width (`float`): where the loss becomes linear, in units of a pixel.

    Returns:
        `torch.Tensor` of shape (N,), float32.
    """
    mean_square = (output.float() - target.float()).square().mean(dim=(1, 2, 3))
    return (mean_square + width**2).sqrt() - width
