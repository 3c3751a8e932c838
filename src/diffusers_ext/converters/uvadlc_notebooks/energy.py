"""The energy-based model of tutorial 8."""

import math

from diffusers_ext.converters.original_arguments import checked, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, check_parts, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_energy_conv import EnergyConvNet


UVADLC_ENERGY_ARGUMENTS = {"image_size": positive_integer}
CONVS = ("cnn_layers.0", "cnn_layers.2", "cnn_layers.4", "cnn_layers.6")


def convert_uvadlc_energy(state_dict: StateDict, **config) -> EnergyConvNet:
    r"""
    The `CNNModel` of tutorial 8 in https://github.com/phlippe/uvadlc_notebooks, whose output is minus the energy.

    Args:
        state_dict (`Mapping`):
            The tensors of the original, or of its Lightning module, where their names begin with `cnn.`.
        config:
            `image_size`, by default the largest that fits the first dense layer: 28 of the original.

    Returns:
        [`EnergyConvNet`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or do not fit.
    """
    config = checked(config, UVADLC_ENERGY_ARGUMENTS)
    if all(key.startswith("cnn.") for key in state_dict):
        state_dict = {key.removeprefix("cnn."): tensor for key, tensor in state_dict.items()}
    check_parts(state_dict, "an energy-based model of uvadlc_notebooks", *CONVS, "cnn_layers.9", "cnn_layers.11")
    channels = tuple(size_of(state_dict, {f"{name}.weight": 0, f"{name}.bias": 0}) for name in CONVS)
    last_side = math.isqrt(size_of(state_dict, {"cnn_layers.9.weight": 1}) // channels[-1])
    modules = {name: f"convs.{index}" for index, name in enumerate(CONVS)}
    modules |= {"cnn_layers.9": "proj_hidden", "cnn_layers.11": "proj_out"}
    net_config = {
        # Eight zeros around an image and four halvings: sides from 16 s - 19 to 16 s - 4 leave s pixels.
        "sample_size": config.get("image_size", 16 * last_side - 4),
        "in_channels": size_of(state_dict, {f"{CONVS[0]}.weight": 1}),
        "hidden_channels": channels,
        "head_dim": size_of(state_dict, {"cnn_layers.9.weight": 0, "cnn_layers.9.bias": 0}),
    }
    return load_converted(EnergyConvNet, net_config, modules, state_dict)
