"""Differentiable augmentation of what a discriminator sees, real and generated alike (Zhao et al. 2020).

With little data a discriminator learns the images by heart; augmenting both sides, and letting gradients through to
the generator, keeps it from that without the augmentations showing in what is generated.
"""

from collections.abc import Sequence

import torch


TRANSLATION = 0.125  # of the side, at most
CUTOUT = 0.5  # of the side


def diff_augment(images: torch.Tensor, policy: Sequence[str], draw) -> torch.Tensor:
    """Each image augmented by random numbers of its own.

    - `color`: brightness is moved by up to 0.5, then saturation scaled by 0 to 2, then contrast by 0.5 to 1.5;
    - `translation`: by up to an eighth of each side; what comes in is 0, the mean grey;
    - `cutout`: a square of half the side, somewhere, becomes 0.

    Args:
        images (`torch.Tensor` of shape (N, C, H, W)): in [-1, 1]; colours may leave that range.
        policy (`Sequence[str]`): any of these, applied in this order.
        draw ([`~diffusers_ext.training.loop.draws.Draw`]): the random numbers of N samples: its `uniform(*shape)`
            gives float32 (N, *shape) in [0, 1).

    Raises:
        ValueError: for an unknown name.
    """
    for name in check_policy(policy):
        images = AUGMENTATIONS[name](images, draw)
    return images


def check_policy(policy: Sequence[str]) -> Sequence[str]:
    """Returns `policy` if it names augmentations; raises a ValueError otherwise."""
    unknown = ", ".join(name for name in policy if name not in AUGMENTATIONS)
    if unknown:
        raise ValueError(f"DiffAugment knows {', '.join(AUGMENTATIONS)}, not {unknown}.")
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
        largest = int(side * TRANSLATION + 0.5)
        shift = (fraction * (2 * largest + 1)).long() - largest
        source = torch.arange(side, device=images.device) - shift[:, None]
        inside = (0 <= source) & (source < side)
        shape = (len(images), 1, side, 1) if dim == 2 else (len(images), 1, 1, side)
        # A permutation of the rows or columns: unlike a gather of repeated ones, its gradient is the same in each run.
        images = images.take_along_dim((source % side).view(shape), dim) * inside.view(shape)
    return images


def _cutout(images: torch.Tensor, draw) -> torch.Tensor:
    fractions, kept = draw.uniform(2), None
    for fraction, dim in zip(fractions.unbind(dim=1), (2, 3), strict=True):
        side = images.shape[dim]
        size = int(side * CUTOUT + 0.5)
        # The centre may lie anywhere, so that less is cut at borders.
        first = (fraction * (side + (1 - size % 2))).long() - size // 2
        position = torch.arange(side, device=images.device)
        within = (first[:, None] <= position) & (position < first[:, None] + size)
        if dim == 2:
            kept = within[:, None, :, None]
        else:
            kept = ~(kept & within[:, None, None, :])
    return images * kept


AUGMENTATIONS = {"color": _color, "translation": _translation, "cutout": _cutout}
