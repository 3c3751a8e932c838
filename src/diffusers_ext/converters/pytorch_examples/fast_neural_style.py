"""The feed-forward network of one style, in the examples of PyTorch."""

import re

import torch

from diffusers_ext.converters.original_arguments import checked
from diffusers_ext.converters.state_dicts import StateDict, check_parts, has, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_fast_style import FastStyleNet


LAYERS = {"conv1": ("in1", "layer_in"), "conv2": ("in2", "down_layers.0"), "conv3": ("in3", "down_layers.1")}
LAYERS |= {"deconv1": ("in4", "up_layers.0"), "deconv2": ("in5", "up_layers.1")}
# Statistics in files that were saved before PyTorch 0.4, which instance norm does not use
UNUSED = re.compile(r"in\d+\.(running_mean|running_var|num_batches_tracked)$")
WHITE = 255.0  # the original's images are in [0, 255], and those of the network here in [0, 1]


def convert_fast_neural_style(state_dict: StateDict, **config) -> FastStyleNet:
    r"""
    A `TransformerNet` of `fast_neural_style` in https://github.com/pytorch/examples.

    Its first and last convolution are scaled, so that images are in [0, 1] instead of [0, 255].

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Must be empty, because the tensors show everything.

    Returns:
        [`FastStyleNet`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if there are arguments.
    """
    checked(config, {})
    check_parts(state_dict, "a TransformerNet of fast_neural_style", "conv1.conv2d", "res1.conv1", "deconv3.conv2d")
    state_dict = {key: tensor for key, tensor in state_dict.items() if not UNUSED.search(key)}
    num_blocks = 0
    while has(state_dict, f"res{num_blocks + 1}"):
        num_blocks += 1

    modules = {"deconv3.conv2d": "conv_out"}
    for conv, (norm, target) in LAYERS.items():
        modules |= {f"{conv}.conv2d": f"{target}.conv", norm: f"{target}.norm"}
    for index in range(num_blocks):
        for layer in (1, 2):
            source, target = f"res{index + 1}", f"blocks.{index}.layer{layer}"
            modules |= {f"{source}.conv{layer}.conv2d": f"{target}.conv", f"{source}.in{layer}": f"{target}.norm"}
    net_config = {
        "in_channels": size_of(state_dict, {"conv1.conv2d.weight": 1}),
        "out_channels": size_of(state_dict, {"deconv3.conv2d.weight": 0, "deconv3.conv2d.bias": 0}),
        "block_out_channels": tuple(
            size_of(state_dict, {f"{conv}.conv2d.weight": 0, f"{conv}.conv2d.bias": 0})
            for conv in ("conv1", "conv2", "conv3")
        ),
        "num_blocks": num_blocks,
    }
    return load_converted(FastStyleNet, net_config, modules, state_dict, scale_images)


def scale_images(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor for images in [0, 1]."""
    if key == "conv1.conv2d.weight":
        return tensor * WHITE
    return tensor / WHITE if key.startswith("deconv3.") else tensor
