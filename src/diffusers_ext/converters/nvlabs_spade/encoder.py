"""The image encoder of SPADE."""

from diffusers_ext.converters.nvlabs_spade.spectral_convs import (
    has_spectral_norm,
    normalization_after,
    normalized_conv,
)
from diffusers_ext.converters.state_dicts import StateDict, check_parts, has, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models.modeling_spade import SMALLEST_MAP, SPADEEncoder


def convert_spade_encoder(state_dict: StateDict) -> SPADEEncoder:
    r"""
    A `ConvEncoder` of https://github.com/NVlabs/SPADE.

    Args:
        state_dict (`Mapping`): the tensors of the original, which show its architecture.

    Returns:
        [`SPADEEncoder`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes.
    """
    check_parts(state_dict, "an encoder of SPADE", "layer1", "fc_mu", "fc_var")
    num_layers = 1
    while has(state_dict, f"layer{num_layers + 1}"):
        num_layers += 1
    modules: Modules = {"fc_mu": "linear_mean", "fc_var": "linear_logvar"}
    normalization = normalization_after(state_dict, "layer1")
    for layer in range(num_layers):
        modules |= normalized_conv(f"layer{layer + 1}", normalization, f"convs.{layer}", f"norms.{layer}")
    is_spectral = has_spectral_norm(state_dict)
    first = ("layer1" if normalization == "none" else "layer1.0") + (".weight_orig" if is_spectral else ".weight")
    return load_converted(
        SPADEEncoder,
        {
            "sample_size": SMALLEST_MAP * 2**num_layers,
            "in_channels": size_of(state_dict, {first: 1}),
            "base_channels": size_of(state_dict, {first: 0}),
            "latent_dim": size_of(state_dict, {"fc_mu.weight": 0, "fc_var.weight": 0, "fc_mu.bias": 0}),
            "spectral_norm": is_spectral,
            "normalization": normalization,
        },
        modules,
        state_dict,
    )
