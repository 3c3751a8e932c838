"""The discriminators of pix2pix and CycleGAN, of patches or of pixels."""

from diffusers_ext.converters.cyclegan_layout import (
    NORM,
    check_against,
    load_network,
    read_normalization,
)
from diffusers_ext.converters.original_arguments import checked, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, has, size_of
from diffusers_ext.models.modeling_patch_discriminator import PatchDiscriminator


DISCRIMINATOR_ARGUMENTS = {
    "input_nc": positive_integer,
    "ndf": positive_integer,
    "n_layers": positive_integer,
    "norm": NORM,
}


def convert_patch_discriminator(state_dict: StateDict, **config) -> PatchDiscriminator:
    r"""
    An `NLayerDiscriminator` or `PixelDiscriminator` of https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix.

    The conditional discriminator of pix2pix takes the channels of the condition and then the channels of the image.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's constructor: `input_nc`, `ndf`, `n_layers`, `norm`. The tensors show all of
            them, and they must agree with the tensors if they are given.

    Returns:
        [`PatchDiscriminator`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, DISCRIMINATOR_ARGUMENTS)
    is_pixel = has(state_dict, "net")
    root = "net" if is_pixel else "model"
    last = 2
    while has(state_dict, f"{root}.{last + 3}"):
        last += 3
    convs, norms = {f"{root}.0": "conv_in"}, {}
    for index, position in enumerate(range(2, last, 3)):
        convs[f"{root}.{position}"] = f"blocks.{index}.conv"
        norms[f"{root}.{position + 1}"] = f"blocks.{index}.norm"
    convs[f"{root}.{last}"] = "conv_out"
    biased = ("net.0",) if is_pixel else ("model.0", f"model.{last}")
    normalization = read_normalization(state_dict, convs, biased, norms)
    num_layers = 0 if is_pixel else len(norms)
    channels, width = (size_of(state_dict, {f"{root}.0.weight": dimension}) for dimension in (1, 0))
    check_against(config, normalization, {"in_channels": channels}, ndf=width, n_layers=num_layers)
    return load_network(
        PatchDiscriminator,
        {
            "in_channels": channels,
            "base_channels": width,
            "num_layers": num_layers,
            "normalization": normalization,
        },
        convs,
        biased,
        norms,
        state_dict,
    )
