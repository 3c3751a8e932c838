"""Colours of an image that stay near those of another: what the layers of a StyleGAN2 add to the image."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import ModelMixin
from torch.nn import functional as F


def gram_matrices(features: torch.Tensor) -> torch.Tensor:
    """The products `(N, C, C)` of the channels of features `(N, C, H, W)`, divided by the number of values."""
    rows = features.flatten(2)
    return rows @ rows.transpose(1, 2) / rows[0].numel()


def color_distance(layers: list[torch.Tensor], wanted: list[torch.Tensor], is_scaled: bool = False) -> torch.Tensor:
    """
    The smooth L1 distances of Gram matrices, summed over layers (Luo et al. 2021, section 3.3).

    Args:
        layers (`list[torch.Tensor]`): what each layer adds to the image, `(N, C, H, W)`.
        wanted (`list[torch.Tensor]`): the same of the image whose colours are wanted, `(N, C, H, W)`.
        is_scaled (`bool`, defaults to `False`): whether both are divided by the root of the mean square of `wanted`.

    Returns:
        `torch.Tensor` of shape `(N,)`.
    """
    total = 0
    for made, goal in zip(layers, wanted, strict=True):
        if is_scaled:
            scale = goal.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
            made, goal = made / scale, goal / scale
        distances = F.smooth_l1_loss(gram_matrices(made), gram_matrices(goal), reduction="none")
        total = total + distances.mean(dim=(1, 2))
    return total


def has_image_layers(generator: ModelMixin) -> bool:
    """Whether each block of the generator adds to the image, as the skip generator of StyleGAN2 does."""
    blocks = list(getattr(generator, "blocks", ()))
    return bool(blocks) and all(getattr(block, "to_rgb", None) is not None for block in blocks)


@contextmanager
def recorded_image_layers(generator: ModelMixin) -> Iterator[list[torch.Tensor]]:
    """A list that holds what each layer adds to the image, float32, after each call of the generator."""
    layers = []
    hooks = [
        block.to_rgb.register_forward_hook(lambda module, inputs, output: layers.append(output.float()))
        for block in generator.blocks
    ]
    try:
        yield layers
    finally:
        for hook in hooks:
            hook.remove()
