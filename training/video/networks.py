"""The networks of text-to-video models: a denoiser of space and time, and how texts affect it from the start."""

import math
import re

import torch
from diffusers import UNetMotionModel
from transformers import CLIPTextModel

from diffusers_ext.training.diffusion.denoisers import check_size, default_unet, derived_arguments, sample_size
from diffusers_ext.training.loop.network_options import build_network


LONGEST_FILM = 32  # frames that a usual network can order
TEXT_GAIN = 3.0  # the weights through which a text affects the film start larger by this factor


def build_motion_unet(
    *, size: tuple[int, int], channels: int, num_frames: int, text_width: int, arguments: dict
) -> UNetMotionModel:
    """A new denoiser of films, whose layers see frames one by one, or each position in all frames.

    Args:
        size (`tuple[int, int]`): height and width of the frames.
        channels (`int`): of the frames.
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
    }
    decided = {
        "in_channels": channels,
        "out_channels": channels,
        "sample_size": sample_size(size),
        "cross_attention_dim": text_width,
    }

    def trial(unet: UNetMotionModel) -> None:
        check_size(unet, size)
        states = torch.zeros(num_frames, 1, text_width)
        unet(torch.zeros(1, channels, num_frames, *size), torch.zeros(1), encoder_hidden_states=states)

    longest = arguments.get("motion_max_seq_length")
    if isinstance(longest, int) and longest < num_frames:
        raise ValueError(f"--unet: motion_max_seq_length is {longest}, but --num_frames is {num_frames}.")
    unet = build_network(UNetMotionModel, "--unet", arguments, usual=usual, decided=decided, trial=trial)
    check_size(unet, size)
    return unet


def _motion_block(name: str) -> str:
    """The block of space and time for a block of a [`UNet2DModel`]; others keep their names."""
    return re.sub("(?<!Cross)Attn", "CrossAttn", name).replace("2D", "Motion") if name.endswith("2D") else name


@torch.no_grad()
def empty_ends(encoder: CLIPTextModel) -> None:
    """Let the states of a new text encoder depend on the words from the start: its start and end tokens are 0."""
    embeddings = encoder.get_input_embeddings().weight.normal_()
    embeddings[[encoder.config.bos_token_id, encoder.config.eos_token_id]] = 0.0


@torch.no_grad()
def emphasise_text(unet: UNetMotionModel) -> None:
    """Let texts affect the films of a new network from the start; else it learns to draw long before it reads."""
    for name, weight in unet.named_parameters():
        if name.endswith(("attn2.to_v.weight", "attn2.to_out.0.weight")) and "motion_modules" not in name:
            weight.mul_(TEXT_GAIN)
