"""New denoisers of films, of the classes that diffusers has: layers of space, and layers of time."""

import math
import re

import torch
from diffusers import ModelMixin, UNet3DConditionModel, UNetMotionModel

from diffusers_ext.pipelines.prompts import LEVEL_WIDTH, film_inputs
from diffusers_ext.training.diffusion.denoisers import check_size, default_unet, derived_arguments, sample_size
from diffusers_ext.training.loop.network_options import build_network


LONGEST_FILM = 32  # frames that a usual network can order


def build_film_denoiser(
    class_name: str,
    *,
    size: tuple[int, int],
    in_channels: int,
    out_channels: int,
    num_frames: int,
    text_width: int,
    takes_noise_level: bool,
    arguments: dict,
) -> UNetMotionModel | UNet3DConditionModel:
    """A new denoiser of films, which adds the text as a whole to the timestep.

    That is as in Imagen: by attention alone a network learns to read much later.

    Args:
        class_name (`str`): one of `FILM_DENOISERS`.
        size (`tuple[int, int]`): height and width of the frames.
        in_channels, out_channels (`int`): of a frame, and of the network's output for it.
        num_frames (`int`): the frames of a film.
        text_width (`int`): the width of the text encoder's states.
        takes_noise_level (`bool`): whether it is told the noise level of a small film.
        arguments (`dict`): arguments of the class that a user gives.

    Raises:
        ValueError: naming the option, if the arguments don't fit each other, the frames or the films.
    """
    longest = arguments.get("motion_max_seq_length")
    if isinstance(longest, int) and longest < num_frames:
        raise ValueError(f"--unet: motion_max_seq_length is {longest}, but --num_frames is {num_frames}.")
    network_class, block_ending, own_arguments = FILM_DENOISERS[class_name]
    usual = derived_arguments(arguments, size) if arguments else default_unet(size)
    for name in ("down_block_types", "up_block_types"):
        usual[name] = tuple(_block_of_films(block, block_ending) for block in usual[name])
    usual.pop("attention_head_dim", None)  # of images
    own, told = own_arguments(math.gcd(8, *usual["block_out_channels"]), num_frames, text_width, takes_noise_level)
    decided = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "sample_size": sample_size(size),
        "cross_attention_dim": text_width,
        **told,
    }

    def trial(unet: ModelMixin) -> None:
        check_size(unet, size)
        texts = {"encoder_hidden_states": torch.zeros(1, 1, text_width), "text_embeds": torch.zeros(1, text_width)}
        levels = torch.zeros(1) if takes_noise_level else None
        films = torch.zeros(1, in_channels, num_frames, *size)
        unet(films, torch.zeros(1), **film_inputs(unet, texts, num_frames, levels))

    unet = build_network(network_class, "--unet", arguments, usual=usual | own, decided=decided, trial=trial)
    check_size(unet, size)
    for layer in _layers_of_whole_texts(unet):
        # Texts are then as far apart as classes are, whose embeddings have unit variance from the start.
        torch.nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    return unet


def _motion_arguments(num_heads: int, num_frames: int, text_width: int, takes_noise_level: bool) -> tuple[dict, dict]:
    """Usual arguments of a UNetMotionModel, and those that other options decide."""
    usual = {
        "num_attention_heads": num_heads,
        "motion_num_attention_heads": num_heads,
        "motion_max_seq_length": max(LONGEST_FILM, num_frames),
        "use_linear_projection": True,
    }
    numbers = 2 if takes_noise_level else 1  # that of the frames comes first
    return usual, {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": LEVEL_WIDTH,
        "projection_class_embeddings_input_dim": text_width + numbers * LEVEL_WIDTH,
    }


def _convolutional_arguments(
    num_heads: int, num_frames: int, text_width: int, takes_noise_level: bool
) -> tuple[dict, dict]:
    """Usual arguments of a UNet3DConditionModel, and those that other options decide."""
    # In this class it is the number of heads.
    return {"attention_head_dim": num_heads}, {"time_cond_proj_dim": text_width + takes_noise_level * LEVEL_WIDTH}


def _layers_of_whole_texts(unet: ModelMixin) -> list[torch.nn.Linear]:
    if isinstance(unet, UNet3DConditionModel):
        return [unet.time_embedding.cond_proj]
    return [unet.add_embedding.linear_1, unet.add_embedding.linear_2]


def _block_of_films(name: str, ending: str) -> str:
    """The block of space and time for a block of a [`UNet2DModel`]; others keep their names."""
    return re.sub("(?<!Cross)Attn", "CrossAttn", name)[: -len("2D")] + ending if name.endswith("2D") else name


# Attention over time (AnimateDiff), or convolutions over time, with attention at the lower resolutions.
FILM_DENOISERS = {
    "UNetMotionModel": (UNetMotionModel, "Motion", _motion_arguments),
    "UNet3DConditionModel": (UNet3DConditionModel, "3D", _convolutional_arguments),
}
