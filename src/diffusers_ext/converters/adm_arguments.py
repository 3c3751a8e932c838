"""The constructor arguments of ADM U-Nets: which ones they share, and what they mean for diffusers' classes."""

from collections.abc import Callable, Mapping

import torch

from diffusers_ext.converters.adm_layout import ADMLayout
from diffusers_ext.converters.original_arguments import (
    boolean,
    check_agreement,
    numbers,
    one_of,
    positive_integer,
    probability,
)


def head_count(name: str, value) -> int:
    """A number of heads or of channels per head; the originals write -1 for "not given"."""
    return value if isinstance(value, int) and value == -1 else positive_integer(name, value)


# What the constructors of all the originals have. How they were run (`use_checkpoint`, `use_fp16`) has no effect here.
ADM_ARGUMENTS = {
    "image_size": positive_integer,
    "in_channels": positive_integer,
    "model_channels": positive_integer,
    "out_channels": positive_integer,
    "num_res_blocks": positive_integer,
    "attention_resolutions": numbers,
    "dropout": probability,
    "channel_mult": numbers,
    "num_heads": head_count,
    "num_heads_upsample": head_count,
    "use_scale_shift_norm": boolean,
    "conv_resample": one_of(True),
    "dims": one_of(2),
    "use_checkpoint": boolean,
    "use_fp16": boolean,
}
# guided-diffusion and what followed added these.
GUIDED_ARGUMENTS = {
    "num_head_channels": head_count,
    "resblock_updown": boolean,
    "use_new_attention_order": boolean,
}


def check_against(layout: ADMLayout, config: Mapping, names: Mapping[str, str], **read) -> None:
    """Refuses an argument that contradicts the checkpoint.

    Args:
        layout (`ADMLayout`): what the checkpoint shows.
        config (`Mapping`): the arguments.
        names (`Mapping`): the original's names of arguments that have another name here.
        read: what else the checkpoint shows, by the names of the arguments.
    """
    read |= {
        "model_channels": layout.model_channels,
        "num_res_blocks": layout.num_res_blocks,
        "use_scale_shift_norm": layout.use_scale_shift_norm,
        "channel_mult": [width / layout.model_channels for width in layout.widths],
        "attention_resolutions": layout.resolutions(),
    }
    if len(layout.widths) > 1:  # a single level halves nothing, so that either value is right
        read["resblock_updown"] = layout.resblock_updown
    given = dict(config)
    if "channel_mult" in given:
        widths = [int(factor * layout.model_channels) for factor in given["channel_mult"]]
        given["channel_mult"] = [width / layout.model_channels for width in widths]
    if "attention_resolutions" in given:
        rates = [2**level for level in range(len(layout.widths))]
        given["attention_resolutions"] = [rate for rate in rates if rate in given["attention_resolutions"]]
    check_agreement(config, given, read, names)


def read_heads(config: Mapping) -> dict[str, int]:
    """The attention heads by diffusers' names: `attention_head_dim` or `num_attention_heads`.

    Raises:
        ValueError: if neither `num_head_channels` nor `num_heads` is given, because no tensor shows them.
    """
    if config.get("num_heads_upsample", -1) not in (-1, config.get("num_heads")):
        raise ValueError("`num_heads_upsample` must equal `num_heads`: other networks are not converted.")
    if config.get("num_head_channels", -1) != -1:
        return {"attention_head_dim": config["num_head_channels"]}
    if config.get("num_heads", -1) == -1:
        raise ValueError(
            "The checkpoint does not show how many attention heads it has: give `num_heads` or, if all heads have the "
            "same width, `num_head_channels`."
        )
    return {"num_attention_heads": config["num_heads"]}


def check_heads(widths: list[int], heads: dict[str, int]) -> None:
    """Refuses heads that do not divide the widths."""
    ((name, number),) = heads.items()
    for width in widths:
        if width % number != 0:
            original = {"attention_head_dim": "num_head_channels", "num_attention_heads": "num_heads"}[name]
            raise ValueError(f"`{original}` must divide the {width} channels where attention runs, but is {number}.")


def in_order_of_diffusers(
    heads: dict[str, int], use_new_attention_order: bool = False
) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """A function that brings queries, keys and values into diffusers' order: all queries, all keys, all values.

    The originals store query, key and value of one head after the other, unless `use_new_attention_order` is given.
    """

    def prepare(key: str, tensor: torch.Tensor) -> torch.Tensor:
        if ".qkv." not in key or use_new_attention_order:
            return tensor
        channels = tensor.shape[0] // 3
        num_heads = heads.get("num_attention_heads") or channels // heads["attention_head_dim"]
        return tensor.unflatten(0, (num_heads, 3, channels // num_heads)).transpose(0, 1).reshape(tensor.shape)

    return prepare
