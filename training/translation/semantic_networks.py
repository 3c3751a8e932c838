"""The networks of semantic synthesis: a SPADE generator, and an encoder of styles."""

import torch

from diffusers_ext.models import SPADEEncoder, SPADEGenerator
from diffusers_ext.training.loop.network_options import build_network


SMALLEST_START = 4  # pixels a side of the maps from which a generator starts; 8 for 256 pixels, as in the paper
LARGEST_STYLE_IMAGE = 256  # the encoder of the paper resizes images to this


def build_spade_generator(
    arguments: dict,
    *,
    size: tuple[int, int],
    channels: int,
    num_labels: int,
    instance_edges: bool,
    base_channels: int,
    latent_dim: int | None,
    normalization: str,
) -> SPADEGenerator:
    """A new generator.

    Args:
        arguments (`dict`): arguments of [`SPADEGenerator`] that replace the usual ones for images of this size.
        size, channels: of the images; size is height and width.
        num_labels (`int`): the labels of the maps.
        instance_edges (`bool`): whether the edges of objects follow the labels.
        base_channels (`int`): the channels at full size.
        latent_dim (`int`, *optional*): the length of the style.
        normalization (`str`): "batch" or "instance".

    Raises:
        ValueError: if the arguments do not fit the class or the images.
    """
    decided = {
        "sample_size": size,
        "num_labels": num_labels,
        "out_channels": channels,
        "base_channels": base_channels,
        "latent_dim": latent_dim,
        "normalization": normalization,
        "instance_edges": instance_edges,
    }

    def trial(network: SPADEGenerator) -> None:
        network(
            torch.zeros(1, num_labels + instance_edges, *size),
            None if latent_dim is None else torch.zeros(1, latent_dim),
        )

    usual = {"num_upsamplings": default_upsamplings(size)}
    return build_network(SPADEGenerator, "--generator_options", arguments, usual=usual, decided=decided, trial=trial)


def default_upsamplings(size: tuple[int, int]) -> int:
    """How often maps are doubled: 5 times as in the paper, or less for small images and odd sizes."""
    count = 1
    while count < 5 and all(side % 2 ** (count + 1) == 0 and side >> count + 1 >= SMALLEST_START for side in size):
        count += 1
    return count


def build_spade_encoder(
    *, size: tuple[int, int], channels: int, base_channels: int, latent_dim: int, normalization: str = "instance"
) -> SPADEEncoder:
    """A new encoder for styles, which resizes images to a square with a power of two as its side.

    Args:
        size, channels: of the images; size is height and width.
        base_channels (`int`): the channels of the first layer.
        latent_dim (`int`): the length of the style.
        normalization (`str`): "instance", "batch" or "none".
    """
    side = 8
    while side * 2 <= min(*size, LARGEST_STYLE_IMAGE):
        side *= 2
    return SPADEEncoder(side, channels, base_channels, latent_dim, normalization=normalization)
