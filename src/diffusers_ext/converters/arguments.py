"""The arguments of the original networks: what they may be, and whether they agree with the checkpoint."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch

from diffusers_ext.converters.layout import Layout


_INTEGERS = (
    "image_size",
    "in_channels",
    "model_channels",
    "out_channels",
    "num_res_blocks",
    "diffusion_steps",
    "num_heads",
    "num_head_channels",
    "num_heads_upsample",
    # of Palette and SR3
    "in_channel",
    "inner_channel",
    "out_channel",
    "res_blocks",
    "norm_groups",
    "channels",
    # of pix2pix and CycleGAN
    "input_nc",
    "output_nc",
    "ngf",
    "ndf",
    "num_downs",
    "n_blocks",
    "n_layers",
    # of GANs
    "nz",
    "nc",
    "imageSize",
    "latent_size",
    "hidden_size",
    # of autoencoders
    "latent_dim",
    "num_embeddings",
    "n_embed",
    "embed_dim",
    "resolution",
    "ch",
    "out_ch",
    "z_channels",
)
_BOOLEANS = (
    "use_scale_shift_norm",
    "resblock_updown",
    "use_new_attention_order",
    "rescale_timesteps",
    "use_checkpoint",
    "use_fp16",
    "use_ema",
    "conditional",
    "use_dropout",
    "double_z",
)
_LISTS = (
    "attention_resolutions",
    "channel_mult",
    "attn_res",
    "channel_mults",
    "channel_multiplier",
    # of autoencoders
    "ch_mult",
    "attn_resolutions",
    "hidden_dims",
    "img_size",
    "input_dim",
)
# Variants of the originals' code that no published image network uses.
_FIXED = {"dims": 2, "conv_resample": True, "use_spatial_transformer": False}

# What the constructors of all the originals have. How they were run (`use_checkpoint`, `use_fp16`) has no effect here.
COMMON = (
    "image_size",
    "in_channels",
    "model_channels",
    "out_channels",
    "num_res_blocks",
    "attention_resolutions",
    "dropout",
    "channel_mult",
    "num_heads",
    "num_heads_upsample",
    "use_scale_shift_norm",
    "conv_resample",
    "dims",
    "use_checkpoint",
    "use_fp16",
)


def checked(config: Mapping, known: tuple[str, ...]) -> dict:
    """The arguments, with a list where one number stands for a list of one.

    Raises:
        ValueError: if an argument is not among the `known`, is of the wrong kind, or asks for a network that is not
            converted.
    """
    config = dict(config)
    for name, value in config.items():
        if name not in known:
            raise ValueError(f"This network has no argument {name!r}: it has {', '.join(known)}.")
        if name in _INTEGERS and (isinstance(value, bool) or not isinstance(value, int)):
            raise ValueError(f"`{name}` must be an integer, but is {value!r}.")
        if name in _INTEGERS and value < 1 and not (value == -1 and name.startswith("num_head")):
            raise ValueError(f"`{name}` must be positive, but is {value}.")
        if name in ("commitment_loss_factor", "decay") and not (_is_number(value) and value >= 0):
            raise ValueError(f"`{name}` must be a number from 0 on, but is {value!r}.")
        if name == "dropout" and not (_is_number(value) and 0 <= value <= 1):
            raise ValueError(f"`dropout` must be a number from 0 to 1, but is {value!r}.")
        if name == "num_classes" and value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise ValueError(f"`num_classes` must be an integer or None, but is {value!r}.")
        if name in _BOOLEANS:
            check_boolean(name, value)
        if name in _LISTS:
            value = config[name] = list(value) if isinstance(value, (list, tuple)) else [value]
            if not all(map(_is_number, value)):
                raise ValueError(f"`{name}` must be a list of numbers, but is {value!r}.")
        if name in _FIXED and value != _FIXED[name]:
            raise ValueError(
                f"`{name}` must be {_FIXED[name]}, for other networks are not converted, but is {value!r}."
            )
    if config.get("num_heads_upsample", -1) not in (-1, config.get("num_heads")):
        raise ValueError("`num_heads_upsample` must be as `num_heads`, for other networks are not converted.")
    return config


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_boolean(name: str, value) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be True or False, but is {value!r}.")


def check_image_size(image_size: int | None, num_levels: int) -> None:
    """Refuses images that a U-Net cannot halve from each level to the next, and double again to the same size."""
    factor = 2 ** (num_levels - 1)
    if image_size is not None and image_size % factor != 0:
        raise ValueError(
            f"`image_size` must be a multiple of {factor}, for the network halves images from each of its "
            f"{num_levels} levels to the next, but is {image_size}."
        )


def check_against(layout: Layout, config: Mapping, names: Mapping[str, str], **read) -> None:
    """Refuses an argument that says something else than the checkpoint.

    Args:
        layout (`Layout`): what the checkpoint says.
        config (`Mapping`): the arguments.
        names (`Mapping`): what the original calls the arguments that have another name here.
        read: more that the checkpoint says, by the names of the arguments.
    """
    read |= {
        "model_channels": layout.model_channels,
        "num_res_blocks": layout.num_res_blocks,
        "use_scale_shift_norm": layout.use_scale_shift_norm,
        "channel_mult": [width / layout.model_channels for width in layout.widths],
        "attention_resolutions": layout.resolutions(),
    }
    if len(layout.widths) > 1:  # otherwise nothing is halved, in either way
        read["resblock_updown"] = layout.resblock_updown
    given = dict(config)
    if "channel_mult" in given:
        widths = [int(factor * layout.model_channels) for factor in given["channel_mult"]]
        given["channel_mult"] = [width / layout.model_channels for width in widths]
    if "attention_resolutions" in given:
        rates = [2**level for level in range(len(layout.widths))]
        given["attention_resolutions"] = [rate for rate in rates if rate in given["attention_resolutions"]]
    check_agreement(config, given, read, names)


def check_agreement(
    config: Mapping, given: Mapping, read: Mapping, names: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Refuses the first argument that differs from what was read.

    Args:
        config (`Mapping`): the arguments as the user wrote them.
        given (`Mapping`): the same, to be compared.
        read (`Mapping`): what the checkpoint says.
        names (`Mapping`): what the original calls the arguments that have another name here.
    """
    for name, value in read.items():
        if name in given and given[name] != value:
            raise ValueError(f"`{names.get(name, name)}` is given as {config[name]}, but the checkpoint has {value}.")


def read_heads(config: Mapping) -> dict[str, int]:
    """The attention heads in diffusers' words: `attention_head_dim` or `num_attention_heads`.

    Raises:
        ValueError: if neither `num_head_channels` nor `num_heads` is given: no tensor shows them.
    """
    if config.get("num_head_channels", -1) != -1:
        return {"attention_head_dim": config["num_head_channels"]}
    if config.get("num_heads", -1) == -1:
        raise ValueError(
            "The checkpoint does not show how many attention heads it has: give `num_heads` or, where all heads are "
            "equally wide, `num_head_channels`."
        )
    return {"num_attention_heads": config["num_heads"]}


def in_order_of_diffusers(config: Mapping, heads: dict[str, int]):
    """A function that brings queries, keys and values in order: the originals put them head by head, unless
    `use_new_attention_order` is given, where all queries come first, then all keys, then all values."""

    def prepare(key: str, tensor: torch.Tensor) -> torch.Tensor:
        if ".qkv." not in key or config.get("use_new_attention_order", False):
            return tensor
        channels = tensor.shape[0] // 3
        num_heads = heads.get("num_attention_heads") or channels // heads["attention_head_dim"]
        return tensor.unflatten(0, (num_heads, 3, channels // num_heads)).transpose(0, 1).reshape(tensor.shape)

    return prepare


def check_heads(widths: list[int], heads: dict[str, int]) -> None:
    """Refuses heads that the widths cannot be divided among."""
    ((name, number),) = heads.items()
    for width in widths:
        if width % number != 0:
            original = {"attention_head_dim": "num_head_channels", "num_attention_heads": "num_heads"}[name]
            raise ValueError(f"`{original}` must divide the {width} channels where attention runs, but is {number}.")
