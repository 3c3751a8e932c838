"""The U-Net generator of pix2pix."""

from diffusers_ext.converters.cyclegan_layout import (
    DROPOUT,
    GENERATOR_ARGUMENTS,
    check_against,
    load_network,
    read_normalization,
)
from diffusers_ext.converters.original_arguments import checked, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, has, size_of
from diffusers_ext.models.modeling_unet_generator import UNetGenerator


UNET_ARGUMENTS = {**GENERATOR_ARGUMENTS, "num_downs": positive_integer}


def convert_unet_generator(state_dict: StateDict, **config) -> UNetGenerator:
    r"""
    A `UnetGenerator` of https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's constructor. No tensor shows `use_dropout`, which matters for training and
            wherever dropout is the source of noise. It is `True` by default, because pix2pix trains with dropout. What
            the tensors show (`input_nc`, `output_nc`, `num_downs`, `ngf`, `norm`) need not be given, and must agree
            with them if it is.

    Returns:
        [`UNetGenerator`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, UNET_ARGUMENTS)
    levels = ["model.model"]  # the innermost level last
    levels += ["model.model.1.model"] if has(state_dict, "model.model.1.model") else []
    while has(state_dict, f"{levels[-1]}.3.model"):
        levels.append(f"{levels[-1]}.3.model")
    count, last = len(levels), len(levels) - 1
    downs = [f"{level}.{0 if position == 0 else 1}" for position, level in enumerate(levels)]
    ups = [f"{level}.{3 if position in (0, last) else 5}" for position, level in enumerate(levels)]

    convs = {downs[0]: "conv_in", ups[0]: "conv_out"}
    norms = {}
    for level in range(1, count):
        convs[downs[level]] = f"down_layers.{level - 1}.conv"
        convs[ups[level]] = f"up_layers.{last - level}.conv"
        norms[f"{levels[level]}.{4 if level == last else 6}"] = f"up_layers.{last - level}.norm"
        if level < last:
            norms[f"{levels[level]}.2"] = f"down_layers.{level - 1}.norm"
    normalization = read_normalization(state_dict, convs, (ups[0],), norms)
    widths = tuple(size_of(state_dict, {f"{down}.weight": 0}) for down in downs)
    channels = {
        "in_channels": size_of(state_dict, {f"{downs[0]}.weight": 1}),
        "out_channels": size_of(state_dict, {f"{ups[0]}.weight": 1, f"{ups[0]}.bias": 0}),
    }
    check_against(config, normalization, channels, ngf=widths[0], num_downs=count)
    return load_network(
        UNetGenerator,
        {
            **channels,
            "block_out_channels": widths,
            "normalization": normalization,
            "dropout": DROPOUT if config.get("use_dropout", True) else 0.0,
            # the levels of eight times `ngf` channels, except for the innermost one
            "num_dropout_layers": max(count - 5, 0),
        },
        convs,
        (ups[0],),
        norms,
        state_dict,
    )
