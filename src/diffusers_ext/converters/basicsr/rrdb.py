"""The generator of ESRGAN and Real-ESRGAN, in the three layouts that its checkpoints have had."""

import math
import re
from collections.abc import Mapping

from diffusers_ext.converters.original_arguments import check_agreement, checked, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks, has, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models.modeling_rrdb import RRDBNet


RRDB_ARGUMENTS = dict.fromkeys(
    ("num_in_ch", "num_out_ch", "num_feat", "num_block", "num_grow_ch", "scale"), positive_integer
)


def convert_rrdb(state_dict: StateDict, **config) -> RRDBNet:
    r"""
    An `RRDBNet` of https://github.com/XPixelGroup/BasicSR or https://github.com/xinntao/ESRGAN.

    The tensors may be in the layout of BasicSR and Real-ESRGAN (`body.0.rdb1.conv1`), of ESRGAN's repository
    (`RRDB_trunk.0.RDB1.conv1`), or of the first ESRGAN (`model.1.sub.0.RDB1.conv1.0`).

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's constructor. A `scale` smaller than the enlargement after the blocks means that
            the original first turns pixels into channels. By default it is assumed where the network has 4 or 16 times
            as many channels in its input as in its output. Arguments that the tensors show must agree with them.

    Returns:
        [`RRDBNet`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, RRDB_ARGUMENTS)
    layout = _read_layout(state_dict)
    conv_in, conv_out = layout["conv_in"], layout["conv_out"]
    blocks, dense = layout["blocks"], layout["dense"].format(1, 1)
    num_blocks = count_blocks({key: t for key, t in state_dict.items() if f".{dense.split('.')[0]}." in key}, blocks)
    out_channels = size_of(state_dict, {f"{conv_out}.weight": 0, f"{conv_out}.bias": 0})
    num_inputs = size_of(state_dict, {f"{conv_in}.weight": 1})
    factor = _unshuffle_factor(
        num_inputs, config.get("num_in_ch", out_channels), len(layout["ups"]), config.get("scale")
    )
    read = {
        "num_in_ch": num_inputs // factor**2,
        "num_out_ch": out_channels,
        "num_feat": size_of(state_dict, {f"{conv_in}.weight": 0, f"{conv_in}.bias": 0, f"{conv_out}.weight": 1}),
        "num_block": num_blocks,
        "num_grow_ch": size_of(state_dict, {f"{blocks}.0.{dense}.weight": 0, f"{blocks}.0.{dense}.bias": 0}),
        "scale": 2 ** len(layout["ups"]) // factor,
    }
    check_agreement(config, config, read)

    modules: Modules = {conv_in: "conv_in", layout["conv_hr"]: "conv_hr", conv_out: "conv_out"}
    modules[layout["conv_mid"].format(num_blocks)] = "conv_mid"
    modules |= {up: f"up_convs.{index}" for index, up in enumerate(layout["ups"])}
    for block in range(num_blocks):
        for part in range(3):
            for conv in range(5):
                target = f"blocks.{block}.dense_blocks.{part}.{f'convs.{conv}' if conv < 4 else 'conv_out'}"
                modules[f"{blocks}.{block}.{layout['dense'].format(part + 1, conv + 1)}"] = target
    net_config = {
        "in_channels": read["num_in_ch"],
        "out_channels": out_channels,
        "base_channels": read["num_feat"],
        "growth_channels": read["num_grow_ch"],
        "num_blocks": num_blocks,
        "num_upsamplings": len(layout["ups"]),
        "unshuffle_factor": factor,
    }
    return load_converted(RRDBNet, net_config, modules, state_dict)


def _read_layout(state_dict: StateDict) -> Mapping:
    """The names of modules. `dense` has places for the dense block and the convolution, `conv_mid` for the blocks."""
    if has(state_dict, "model.1.sub"):
        numbered = {int(match[1]) for key in state_dict if (match := re.fullmatch(r"model\.(\d+)\.weight", key))}
        later = [f"model.{index}" for index in sorted(numbered - {0})]
        if len(later) < 2:
            raise ValueError(f"This is not a network of ESRGAN: after its blocks it has only {len(later)} layers.")
        return {
            "conv_in": "model.0",
            "blocks": "model.1.sub",
            "dense": "RDB{}.conv{}.0",
            "conv_mid": "model.1.sub.{}",
            "ups": later[:-2],
            "conv_hr": later[-2],
            "conv_out": later[-1],
        }
    is_new = has(state_dict, "body")
    names = ("conv_body", "conv_up", "conv_hr") if is_new else ("trunk_conv", "upconv", "HRconv")
    blocks = "body" if is_new else "RRDB_trunk"
    check_parts(state_dict, "an RRDB network", "conv_first", blocks, names[0], names[2], "conv_last")
    ups = [f"{names[1]}{index}" for index in range(1, 10)]
    return {
        "conv_in": "conv_first",
        "blocks": blocks,
        "dense": "rdb{}.conv{}" if is_new else "RDB{}.conv{}",
        "conv_mid": names[0],
        "ups": [up for up in ups if has(state_dict, up)],
        "conv_hr": names[2],
        "conv_out": "conv_last",
    }


def _unshuffle_factor(num_inputs: int, channels: int, num_upsamplings: int, scale: int | None) -> int:
    """By how much an image of these channels is made smaller to have `num_inputs` channels."""
    enlargement = 2**num_upsamplings
    if scale is None:
        factor = math.isqrt(max(num_inputs // channels, 1))
        is_possible = factor in (1, 2, 4) and enlargement % factor == 0 and num_inputs == channels * factor**2
        return factor if is_possible else 1
    if enlargement % scale != 0 or num_inputs % (enlargement // scale) ** 2 != 0:
        raise ValueError(
            f"`scale` is given as {scale}, but the checkpoint enlarges by {enlargement} after its blocks, from "
            f"{num_inputs} channels."
        )
    return enlargement // scale
