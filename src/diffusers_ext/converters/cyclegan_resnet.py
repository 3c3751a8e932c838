"""The residual generator of CycleGAN."""

import re

from diffusers_ext.converters.cyclegan_layout import (
    DROPOUT,
    GENERATOR_ARGUMENTS,
    check_against,
    load_network,
    read_normalization,
)
from diffusers_ext.converters.original_arguments import anything, checked, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, size_of
from diffusers_ext.models.modeling_resnet_generator import ResnetGenerator


PADDING_MODES = {"reflect": "reflect", "replicate": "replicate", "zero": "zeros"}
RESNET_ARGUMENTS = {**GENERATOR_ARGUMENTS, "n_blocks": positive_integer, "padding_type": anything}


def convert_resnet_generator(state_dict: StateDict, **config) -> ResnetGenerator:
    r"""
    A `ResnetGenerator` of https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's constructor. No tensor shows whether the `padding_type` of padded blocks is
            `"reflect"`, the default, or `"replicate"`. What the tensors show (`input_nc`, `output_nc`, `ngf`,
            `n_blocks`, `norm`, `use_dropout`) need not be given, and must agree with them if it is.

    Returns:
        [`ResnetGenerator`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    return load_resnet_generator(state_dict, checked(config, RESNET_ARGUMENTS))


def load_resnet_generator(
    state_dict: StateDict, config: dict, residual: bool = False, normalization: str | None = None
) -> ResnetGenerator:
    """As [`convert_resnet_generator`], with checked arguments; by default the tensors show the `normalization`."""
    if any(key.endswith(".filt") for key in state_dict):
        raise ValueError(
            "This is the generator of CUT with filters against aliasing, which is not converted: only generators "
            "trained with `no_antialias` and `no_antialias_up` have the layout of CycleGAN."
        )
    blocks = sorted({int(match[1]) for key in state_dict if (match := re.match(r"model\.(\d+)\.conv_block\.", key))})
    if not blocks:
        raise ValueError("This is not a residual network of CycleGAN: it has no `model.*.conv_block`.")
    num_downsamplings, num_blocks = (blocks[0] - 4) // 3, len(blocks)
    is_padded, has_dropout, positions = _read_block(state_dict, f"model.{blocks[0]}.conv_block")

    end = blocks[0] + num_blocks
    convs, norms = {"model.1": "layer_in.conv"}, {"model.2": "layer_in.norm"}
    for index in range(num_downsamplings):
        convs |= {f"model.{4 + 3 * index}": f"down_layers.{index}.conv"}
        norms |= {f"model.{5 + 3 * index}": f"down_layers.{index}.norm"}
        convs |= {f"model.{end + 3 * index}": f"up_layers.{index}.conv"}
        norms |= {f"model.{end + 3 * index + 1}": f"up_layers.{index}.norm"}
    for index in range(num_blocks):
        source, target = f"model.{blocks[0] + index}.conv_block", f"blocks.{index}"
        for layer, position in enumerate(positions, 1):
            convs[f"{source}.{position}"] = f"{target}.layer{layer}.conv"
            norms[f"{source}.{position + 1}"] = f"{target}.layer{layer}.norm"
    conv_out = f"model.{end + 3 * num_downsamplings + 1}"
    convs[conv_out] = "conv_out"
    if normalization is None:
        normalization = read_normalization(state_dict, convs, (conv_out,), norms)
    channels = {
        "in_channels": size_of(state_dict, {"model.1.weight": 1}),
        "out_channels": size_of(state_dict, {f"{conv_out}.weight": 0, f"{conv_out}.bias": 0}),
    }
    width = size_of(state_dict, {"model.1.weight": 0})
    padding_type = config.get("padding_type", "reflect" if is_padded else "zero")
    if padding_type not in PADDING_MODES or is_padded == (padding_type == "zero"):
        possible = "'reflect' or 'replicate'" if is_padded else "'zero'"
        raise ValueError(f"`padding_type` must be {possible} for this checkpoint, but is {padding_type!r}.")
    check_against(config, normalization, channels, ngf=width, n_blocks=num_blocks, use_dropout=has_dropout)
    return load_network(
        ResnetGenerator,
        {
            **channels,
            "base_channels": width,
            "num_downsamplings": num_downsamplings,
            "num_blocks": num_blocks,
            "normalization": normalization,
            "padding_mode": PADDING_MODES[padding_type],
            "dropout": DROPOUT if has_dropout else 0.0,
            "residual": residual,
        },
        convs,
        (conv_out,),
        norms,
        state_dict,
    )


def _read_block(state_dict: StateDict, block: str) -> tuple[bool, bool, tuple[int, int]]:
    """Whether a residual block has padding layers, whether it has dropout, and the positions of its convolutions."""

    def is_conv(position: int) -> bool:
        weight = state_dict.get(f"{block}.{position}.weight")
        return weight is not None and weight.ndim == 4

    layouts = {(1, 5): (True, False), (1, 6): (True, True), (0, 3): (False, False), (0, 4): (False, True)}
    for positions, (is_padded, has_dropout) in layouts.items():
        if all(map(is_conv, positions)):
            return is_padded, has_dropout, positions
    raise ValueError(f"{block} is not a residual block of CycleGAN: its convolutions are at other positions.")
