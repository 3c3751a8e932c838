"""What a translation of images has to keep: the truth where there is one, and else what a way there and back keeps.

All of them are means of absolute errors over the pixels of each image, in float32 and of shape (N,), for images
(N, C, H, W). Their weights are the recipe's.
"""

import torch


def l1_loss(images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The distance to the truth (Isola et al. 2017, eq. 3), of shape (N,)."""
    return (images.float() - target.float()).abs().flatten(1).mean(dim=1)


def cycle_loss(
    images: torch.Tensor,
    reconstructions: torch.Tensor,
    other_images: torch.Tensor,
    other_reconstructions: torch.Tensor,
) -> torch.Tensor:
    """What is lost on the way to the other domain and back (Zhu et al. 2017, eq. 2), of shape (N,).

    DualGAN has the same (Yi et al. 2017, eq. 3: the reconstruction errors of both domains).

    Args:
        images, other_images: x and y, of either domain.
        reconstructions, other_reconstructions: F(G(x)) and G(F(y)).
    """
    return l1_loss(reconstructions, images) + l1_loss(other_reconstructions, other_images)


def identity_loss(
    images: torch.Tensor,
    kept_images: torch.Tensor,
    other_images: torch.Tensor,
    other_kept_images: torch.Tensor,
) -> torch.Tensor:
    """What generators change of images that are in their target domain already (Zhu et al. 2017, section 5.2), (N,).

    It keeps colours from being swapped without need.

    Args:
        images, other_images: x and y, of either domain.
        kept_images, other_kept_images: F(x) and G(y).
    """
    return l1_loss(kept_images, images) + l1_loss(other_kept_images, other_images)
