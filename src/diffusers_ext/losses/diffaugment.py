"""Differentiable augmentation of the discriminator's input (Zhao et al. 2020).

With little data, a discriminator memorises the training images. Augmenting real and generated images, with gradients
that reach the generator, prevents this, and generated images do not show the augmentations.
"""

from collections.abc import Sequence

import torch


MAX_TRANSLATION = 0.125  # as a fraction of the side
CUTOUT_SIZE = 0.5  # as a fraction of the side


def diff_augment(images: torch.Tensor, policy: Sequence[str], draw) -> torch.Tensor:
    """Augments each image by its own random numbers.

    - `color`: brightness is shifted by up to 0.5, then saturation is scaled by 0 to 2, then contrast by 0.5 to 1.5;
    - `translation`: the image is shifted by up to an eighth of each side, and the empty part becomes 0, the mean grey;
    - `cutout`: a square with half the side length becomes 0.

    Args:
        images (`torch.Tensor` of shape (N, C, H, W)): in [-1, 1]; the result can leave this range.
        policy (`Sequence[str]`): names of augmentations, which are applied in this order.
        draw ([`~diffusers_ext.training.loop.draws.Draw`]): the random numbers of N samples: its `uniform(*shape)`
            returns float32 (N, *shape) in [0, 1).

    Raises:
        ValueError: for an unknown name.
    """
    for name in check_policy(policy):
        images = AUGMENTATIONS[name](images, draw)
    return images


def check_policy(policy: Sequence[str]) -> Sequence[str]:
    """Returns `policy` if all its names are known; raises a ValueError otherwise."""
    unknown = ", ".join(name for name in policy if name not in AUGMENTATIONS)
    if unknown:
        raise ValueError(f"DiffAugment has the augmentations {', '.join(AUGMENTATIONS)}, not {unknown}.")
    return policy


def _color(images: torch.Tensor, draw) -> torch.Tensor:
    brightness, saturation, contrast = draw.uniform(3, 1, 1, 1).to(images.dtype).unbind(dim=1)
    images = images + brightness - 0.5
    grey = images.mean(dim=1, keepdim=True)
    images = grey + 2 * saturation * (images - grey)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (0.5 + contrast) * (images - mean)


def _translation(images: torch.Tensor, draw) -> torch.Tensor:
    fractions = draw.uniform(2)
    for fraction, dim in zip(fractions.unbind(dim=1), (2, 3), strict=True):
        side = images.shape[dim]
        largest = int(side * MAX_TRANSLATION + 0.5)
        shift = (fraction * (2 * largest + 1)).long() - largest
        source = torch.arange(side, device=images.device) - shift[:, None]
        inside = (0 <= source) & (source < side)
        shape = (len(images), 1, side, 1) if dim == 2 else (len(images), 1, 1, side)
        # A permutation of rows or columns, because the gradient of a gather with repeated indices is not
        # deterministic.
        images = images.take_along_dim((source % side).view(shape), dim) * inside.view(shape)
    return images


def _cutout(images: torch.Tensor, draw) -> torch.Tensor:
    fractions, kept = draw.uniform(2), None
    for fraction, dim in zip(fractions.unbind(dim=1), (2, 3), strict=True):
        side = images.shape[dim]
        size = int(side * CUTOUT_SIZE + 0.5)
        # The centre can be anywhere, so that a square at the border is only partly inside.
        first = (fraction * (side + (1 - size % 2))).long() - size // 2
        position = torch.arange(side, device=images.device)
        within = (first[:, None] <= position) & (position < first[:, None] + size)
        if dim == 2:
            kept = within[:, None, :, None]
        else:
            kept = ~(kept & within[:, None, None, :])
    return images * kept


AUGMENTATIONS = {"color": _color, "translation": _translation, "cutout": _cutout}
