"""The U-Nets of DANet."""

import torch

from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models.modeling_danet import DANetUNet


def convert_danet(state_dict: StateDict) -> DANetUNet:
    r"""
    A `UNetD`, which estimates noise, or a `UNetG`, which makes noise, of https://github.com/zsyOAOA/DANet.

    A `UNetG` has a channel of noise in its input. The original subtracts what a `UNetD` makes from the image; here the
    last layer has the opposite sign, and its output is added.

    Args:
        state_dict (`Mapping`):
            The tensors of the original. They show all arguments.

    Returns:
        [`DANetUNet`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes.
    """
    check_parts(state_dict, "a U-Net of DANet", "down_path.0.block.0", "last")
    num_levels = count_blocks(state_dict, "down_path")
    channels = size_of(state_dict, {"last.weight": 0, "last.bias": 0})
    noise_channels = size_of(state_dict, {"down_path.0.block.0.weight": 1}) - channels
    modules: Modules = {"last": "conv_out"}
    for level in range(num_levels):
        modules |= _block(f"down_path.{level}.block", f"down_blocks.{level}")
        modules[f"down_path.{level}.downsample"] = f"downsamplers.{level}"
    for level in range(num_levels - 1):
        modules |= _block(f"up_path.{level}.conv_block.block", f"up_blocks.{level}.block")
        modules[f"up_path.{level}.up"] = f"up_blocks.{level}.upsampler"
    config = {
        "in_channels": channels,
        "out_channels": channels,
        "noise_channels": noise_channels,
        "base_channels": size_of(state_dict, {"down_path.0.block.0.weight": 0, "last.weight": 1}),
        "num_levels": num_levels,
    }

    def signed(key: str, tensor: torch.Tensor) -> torch.Tensor:
        return -tensor if key.startswith("last.") and noise_channels == 0 else tensor

    return load_converted(DANetUNet, config, modules, state_dict, prepare=signed)


def _block(source: str, target: str) -> Modules:
    """A block of two convolutions with ReLUs behind them."""
    return {f"{source}.0": f"{target}.conv1", f"{source}.2": f"{target}.conv2"}
