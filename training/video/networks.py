"""The denoiser of text-to-video models, of space and time."""

import math
import re

import torch
from diffusers import UNetMotionModel

from diffusers_ext.pipelines.prompts import tell_film
from diffusers_ext.training.diffusion.denoisers import check_size, default_unet, derived_arguments, sample_size
from diffusers_ext.training.loop.network_options import build_network


LONGEST_FILM = 32  # frames that a usual network can order
NUM_FRAMES_WIDTH = 16  # of the embedding of the number of frames


def build_motion_unet(
    *, size: tuple[int, int], in_channels: int, out_channels: int, num_frames: int, text_width: int, arguments: dict
) -> UNetMotionModel:
    """A new denoiser of films, whose layers see frames one by one, or each position in all frames.

    Args:
        size (`tuple[int, int]`): height and width of the frames.
        in_channels, out_channels (`int`): of a frame, and of the network's output for it.
        num_frames (`int`): the frames of a film.
        text_width (`int`): the width of the text encoder's states.
        arguments (`dict`): arguments of [`UNetMotionModel`] that a user gives.

    Raises:
        ValueError: naming the option, if the arguments don't fit each other, the frames or the films.
    """
    usual = derived_arguments(arguments, size) if arguments else default_unet(size)
    for name in ("down_block_types", "up_block_types"):
        usual[name] = tuple(map(_motion_block, usual[name]))
    usual.pop("attention_head_dim", None)
    heads = math.gcd(8, *usual["block_out_channels"])
    usual |= {
        "num_attention_heads": heads,
        "motion_num_attention_heads": heads,
        "motion_max_seq_length": max(LONGEST_FILM, num_frames),
        "use_linear_projection": True,
        # The text as a whole is added to the timestep, as in Imagen: attention alone learns to read much later.
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": NUM_FRAMES_WIDTH,
        "projection_class_embeddings_input_dim": text_width + NUM_FRAMES_WIDTH,
    }
    decided = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "sample_size": sample_size(size),
        "cross_attention_dim": text_width,
    }

    def trial(unet: UNetMotionModel) -> None:
        check_size(unet, size)
        texts = {"encoder_hidden_states": torch.zeros(1, 1, text_width), "text_embeds": torch.zeros(1, text_width)}
        films = torch.zeros(1, in_channels, num_frames, *size)
        unet(films, torch.zeros(1), **tell_film(texts, num_frames))

    longest = arguments.get("motion_max_seq_length")
    if isinstance(longest, int) and longest < num_frames:
        raise ValueError(f"--unet: motion_max_seq_length is {longest}, but --num_frames is {num_frames}.")
    unet = build_network(UNetMotionModel, "--unet", arguments, usual=usual, decided=decided, trial=trial)
    check_size(unet, size)
    return unet


def _motion_block(name: str) -> str:
    """The block of space and time for a block of a [`UNet2DModel`]; others keep their names."""
    return re.sub("(?<!Cross)Attn", "CrossAttn", name).replace("2D", "Motion") if name.endswith("2D") else name
