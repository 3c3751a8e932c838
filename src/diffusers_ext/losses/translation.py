"""Reconstruction losses of image translation: for pairs of images, and for cycles between two domains.

All of them are means of absolute errors over the pixels of each image, in float32 and of shape (N,), for images
(N, C, H, W), without weights.
"""

import torch


def l1_loss(images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The distance to the target (Isola et al. 2017, eq. 3), of shape (N,)."""
    return (images.float() - target.float()).abs().flatten(1).mean(dim=1)


def cycle_loss(
    images: torch.Tensor,
    reconstructions: torch.Tensor,
    other_images: torch.Tensor,
    other_reconstructions: torch.Tensor,
) -> torch.Tensor:
    """The error of translations to the other domain and back (Zhu et al. 2017, eq. 2), of shape (N,).

    DualGAN has the same loss (Yi et al. 2017, eq. 3: the reconstruction errors of both domains).

    Args:
        images, other_images: x and y, the images of the two domains.
        reconstructions, other_reconstructions: F(G(x)) and G(F(y)).
    """
    return l1_loss(reconstructions, images) + l1_loss(other_reconstructions, other_images)


def identity_loss(
    images: torch.Tensor,
    kept_images: torch.Tensor,
    other_images: torch.Tensor,
    other_kept_images: torch.Tensor,
) -> torch.Tensor:
    """The error of generators for images that are in their target domain already, of shape (N,).

    Zhu et al. (2017, section 5.2). It prevents generators from changing colours without need.

    Args:
        images, other_images: x and y, the images of the two domains.
        kept_images, other_kept_images: F(x) and G(y).
    """
    return l1_loss(kept_images, images) + l1_loss(other_kept_images, other_images)
