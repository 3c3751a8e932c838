"""The Fréchet distance between the patches of two single images (SIFID)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from diffusers_ext.metrics.frechet import FeatureStatistics, frechet_distance
from diffusers_ext.pixels import as_pixel_values, as_uint8


class PatchPixels:
    """The pixels of all patches, as features that need no trained network.

    Args:
        size (`int`): the side of the patches in pixels.

    Attributes:
        name (`str`): what to report beside a value.
    """

    def __init__(self, size: int = 7):
        self.size, self.name = size, f"pixels of {size}x{size} patches"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Maps (N, C * size**2, H', W') of images (N, C, H, W) in [-1, 1]."""
        height, width = (side - self.size + 1 for side in images.shape[2:])
        return F.unfold(images, self.size).unflatten(2, (height, width))


def single_image_fid(
    real: torch.Tensor, generated: torch.Tensor, features: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> torch.Tensor:
    """The FID between the positions of one image and those of each other one: Shaham et al. 2019, section 3.

    The paper's features are those of Inception before its first pooling layer: 64 channels. Values for different
    features cannot be compared.

    Args:
        real (`torch.Tensor` of shape (C, H, W)): the image, uint8 or floats in [-1, 1].
        generated (`torch.Tensor` of shape (N, C, H', W')): images of any one size.
        features (`Callable`, *optional*): from images (N, C, H, W) in [-1, 1] to maps (N, D, h, w); by default
            [`PatchPixels`], which have no weights.

    Returns:
        float64 (N,): the lower, the more alike are the patches.

    Raises:
        ValueError: for images of other shapes, or smaller than a patch.
    """
    if real.ndim != 3 or generated.ndim != 4 or real.shape[0] != generated.shape[1]:
        raise ValueError(
            f"SIFID compares an image (C, H, W) with images (N, C, H', W'), not {tuple(real.shape)} with "
            f"{tuple(generated.shape)}."
        )
    features = features or PatchPixels()
    if isinstance(features, PatchPixels) and min(*real.shape[1:], *generated.shape[2:]) <= features.size:
        raise ValueError(f"SIFID by {features.name} needs larger images.")
    first = _statistics(real, features)
    return torch.tensor([_distance(first, _statistics(image, features)) for image in generated], dtype=torch.float64)


def shuffle_patches(image: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """An image (C, H, W) whose squares of `size` pixels have changed places; what is beside them stays.

    It has the colours and the small patches of the image, but not its order: what SIFID has to beat.
    """
    rows, columns = (side // size for side in image.shape[1:])
    inner = image[:, : rows * size, : columns * size]
    squares = F.unfold(inner[None].float(), size, stride=size)
    order = torch.randperm(squares.shape[2], generator=generator)
    shuffled = image.clone()
    folded = F.fold(squares[:, :, order], inner.shape[1:], size, stride=size)[0]
    shuffled[:, : rows * size, : columns * size] = folded.to(image.dtype)
    return shuffled


def _statistics(image: torch.Tensor, features: Callable) -> FeatureStatistics:
    maps = features(as_pixel_values(as_uint8(image[None])))
    return FeatureStatistics().update(maps.flatten(2)[0].T)


def _distance(first: FeatureStatistics, second: FeatureStatistics) -> float:
    return frechet_distance(first.mean, first.covariance, second.mean, second.covariance)
