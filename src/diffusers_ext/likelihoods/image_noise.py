"""Random numbers for each image of a data set, which depend only on a seed and the index of the image."""

from collections.abc import Callable, Sequence

import torch

from diffusers_ext.data.randomness import derive_seed


def image_generators(
    name: str, seed: int, indices: Sequence[int] | None, images: torch.Tensor
) -> list[torch.Generator]:
    """A generator for each image (N, C, H, W), for the random numbers called `name`.

    Args:
        indices: where the images are in the data set; 0, 1, 2, ... if not given.

    Raises:
        ValueError: if there are no images, or not one index for each of them.
    """
    if len(images) == 0:
        raise ValueError(f"There must be at least one image, but images have the shape {tuple(images.shape)}.")
    indices = range(len(images)) if indices is None else indices
    if len(indices) != len(images):
        raise ValueError(f"There must be one index for each of the {len(images)} images, not {len(indices)}.")
    return [torch.Generator().manual_seed(derive_seed(seed, name, int(index))) for index in indices]


def draw_like(images: torch.Tensor, fill: Callable, generators: list[torch.Generator]) -> torch.Tensor:
    """Random numbers in the shape of `images`, drawn on the CPU so that they are the same on every device.

    Args:
        fill: fills the tensor of one image in place: `fill(tensor, generator=...)`, such as `torch.Tensor.normal_`.
    """
    drawn = torch.empty(images.shape)
    for row, generator in zip(drawn, generators, strict=True):
        fill(row, generator=generator)
    return drawn.to(images.device)


def rademacher_(row: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Fills a tensor with -1 and 1, each with probability 1/2."""
    return row.bernoulli_(generator=generator).mul_(2).sub_(1)
