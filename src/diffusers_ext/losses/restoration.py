"""Distances between restored images and the truth; the absolute one is `l1_loss`.

All are means over the pixels of each image, in float32 and of shape (N,), for images (N, C, H, W), without weights.
"""

import torch


def l2_loss(images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The squared error, of shape (N,) (Ledig et al. 2017, eq. 4)."""
    return (images.float() - target.float()).square().flatten(1).mean(dim=1)


def charbonnier_loss(images: torch.Tensor, target: torch.Tensor, epsilon: float = 1e-3) -> torch.Tensor:
    """sqrt(error^2 + epsilon^2), of shape (N,): the absolute error, with a gradient that is continuous at 0.

    Lai et al. 2017 ("Deep Laplacian pyramid networks", section 3.2).
    """
    return ((images.float() - target.float()).square() + epsilon**2).sqrt().flatten(1).mean(dim=1)
