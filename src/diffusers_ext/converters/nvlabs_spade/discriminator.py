"""The discriminators of SPADE, of patches at several scales."""

from diffusers_ext.converters.nvlabs_spade.spectral_convs import (
    has_spectral_norm,
    normalization_after,
    normalized_conv,
)
from diffusers_ext.converters.state_dicts import StateDict, check_parts, has, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models.modeling_patch_discriminator import MultiScalePatchDiscriminator


def convert_spade_discriminator(state_dict: StateDict) -> MultiScalePatchDiscriminator:
    r"""
    A `MultiscaleDiscriminator` of https://github.com/NVlabs/SPADE.

    It takes the channels of the label map and then the channels of the image.

    Args:
        state_dict (`Mapping`): the tensors of the original, which show its architecture.

    Returns:
        [`MultiScalePatchDiscriminator`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes.
    """
    check_parts(state_dict, "a discriminator of SPADE", "discriminator_0.model0.0", "discriminator_0.model2.0")
    num_scales = _count(state_dict, "discriminator_{}")
    last = _count(state_dict, "discriminator_0.model{}") - 1
    normalization = normalization_after(state_dict, "discriminator_0.model1.0")
    modules: Modules = {}
    for scale in range(num_scales):
        source, target = f"discriminator_{scale}", f"discriminators.{scale}"
        modules |= {f"{source}.model0.0": f"{target}.conv_in", f"{source}.model{last}.0": f"{target}.conv_out"}
        for layer in range(1, last):
            block = f"{target}.blocks.{layer - 1}"
            modules |= normalized_conv(f"{source}.model{layer}.0", normalization, f"{block}.conv", f"{block}.norm")
    first = {f"discriminator_{scale}.model0.0.weight" for scale in range(num_scales)}
    return load_converted(
        MultiScalePatchDiscriminator,
        {
            "num_scales": num_scales,
            "in_channels": size_of(state_dict, dict.fromkeys(first, 1)),
            "base_channels": size_of(state_dict, dict.fromkeys(first, 0)),
            "num_layers": last - 1,
            "normalization": normalization,
            "spectral_norm": "blocks" if has_spectral_norm(state_dict) else False,
            "padding": 2,
        },
        modules,
        state_dict,
    )


def _count(state_dict: StateDict, module: str) -> int:
    count = 0
    while has(state_dict, module.format(count)):
        count += 1
    return count
