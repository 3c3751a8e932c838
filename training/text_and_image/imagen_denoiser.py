"""New denoisers of Imagen's own kind."""

import torch

from diffusers_ext.models import ImagenUNet
from diffusers_ext.training.diffusion.denoisers import check_size, derived_arguments, sample_size
from diffusers_ext.training.loop.network_options import build_network


ATTENTION_SIDE = 16  # from which resolution down levels attend


def build_imagen_unet(
    *,
    size: tuple[int, int],
    in_channels: int,
    out_channels: int,
    text_width: int,
    max_text_length: int,
    takes_noise_level: bool,
    noise_schedule: str | None,
    arguments: dict,
) -> ImagenUNet:
    """A new [`ImagenUNet`].

    Args:
        size (`tuple[int, int]`): height and width of the images.
        in_channels, out_channels (`int`): of the network.
        text_width, max_text_length (`int`): the width of the text encoder's states, and the tokens of a text.
        takes_noise_level (`bool`): whether it is a super-resolver, which is told the noise level of a small image.
        noise_schedule (`str`, *optional*): what timesteps usually are, see [`ImagenUNet`].
        arguments (`dict`): arguments of the class that a user gives.

    Raises:
        ValueError: naming the option, if the arguments don't fit each other or the images.
    """
    widths = derived_arguments(arguments, size)["block_out_channels"]
    attends = tuple(min(size) >> level <= ATTENTION_SIDE for level in range(len(widths)))
    usual = {
        "block_out_channels": widths,
        "layers_per_block": 2,
        "block_attention": attends,
        "block_cross_attention": attends,
        "cross_attention_dim": widths[0],
        "noise_schedule": noise_schedule,
    }
    decided = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "sample_size": sample_size(size),
        "encoder_hid_dim": text_width,
        "max_text_length": max_text_length,
        "class_embed_type": "timestep" if takes_noise_level else None,
    }

    def trial(unet: ImagenUNet) -> None:
        check_size(unet, size)
        levels = torch.zeros(1) if takes_noise_level else None
        unet(torch.zeros(1, in_channels, *size), torch.zeros(1), torch.zeros(1, 1, text_width), levels)

    unet = build_network(ImagenUNet, "--unet", arguments, usual=usual, decided=decided, trial=trial)
    check_size(unet, size)
    return unet
