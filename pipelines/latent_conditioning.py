"""What a denoiser of latents is shown of a conditioning image."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from .latent_space import LatentSpace, PixelSpace


def encode_shown(
    space: PixelSpace | LatentSpace, encoding: str, images: torch.Tensor, hidden: torch.Tensor | None, has_mask: bool
) -> torch.Tensor:
    """
    A conditioning image as channels beside the noisy latents (Rombach et al. 2022, section 4.4).

    Args:
        space (`PixelSpace` or `LatentSpace`): where the denoiser works. In pixels nothing is encoded.
        encoding (`str`): one of `CONDITIONING_ENCODINGS`.
        images (`torch.Tensor` of shape `(N, C, H, W)`): in `[-1, 1]`.
        hidden (`torch.Tensor` of shape `(N, 1, H, W)`, *optional*): true where pixels are hidden.
        has_mask (`bool`): whether a further channel says which latents are hidden: 1 there, and -1 elsewhere.

    Returns:
        `torch.Tensor` of shape `(N, C' or C' + 1, h, w)`: float32; label maps in their own size.
    """
    if isinstance(space, PixelSpace):
        return images
    shown = CONDITIONING_ENCODINGS[encoding](space, images)
    if not has_mask:
        return shown
    mask = -torch.ones_like(shown[:, :1])
    if hidden is not None:
        mask = F.interpolate(hidden.float(), mask.shape[2:], mode="nearest") * 2 - 1
    return torch.cat([shown, mask], dim=1)


def count_image_channels(space: PixelSpace | LatentSpace, encoding: str, shown_channels: int) -> int:
    """The channels of conditioning images that are encoded to so many channels."""
    if encoding == "labels":
        return 1
    if isinstance(space, PixelSpace) or encoding == "resized":
        return shown_channels
    if encoding == "latents":
        return space.image_channels
    return shown_channels // space.pixels_per_latent**2


def _resize(space: LatentSpace, images: torch.Tensor) -> torch.Tensor:
    size = [side // space.pixels_per_latent for side in images.shape[2:]]
    return F.interpolate(images, size, mode="bicubic", antialias=True)


# latents: of the same autoencoder, the most probable ones; pixels: all of them, as more channels, which nothing blurs,
# for label maps and other images that the autoencoder does not know; resized: to the size of the latents, which loses
# nothing of an image that was enlarged by as much; labels: the map as it is, which a network of its own rescales.
CONDITIONING_ENCODINGS: dict[str, Callable[[LatentSpace, torch.Tensor], torch.Tensor]] = {
    "latents": lambda space, images: space.encode(images),
    "pixels": lambda space, images: F.pixel_unshuffle(images, space.pixels_per_latent),
    "resized": _resize,
    "labels": lambda space, images: images,
}
