"""The gated PixelCNN of tutorial 12."""

import torch

from diffusers_ext.converters.original_arguments import checked, numbers, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_pixelcnn import GatedPixelCNN


IMAGE_SIZE = 28
DILATIONS = (1, 2, 1, 4, 1, 2, 1)
UVADLC_PIXELCNN_ARGUMENTS = {"image_size": positive_integer, "dilations": numbers}


def convert_uvadlc_pixelcnn(state_dict: StateDict, **config) -> GatedPixelCNN:
    r"""
    The `PixelCNN` of tutorial 12 in https://github.com/phlippe/uvadlc_notebooks, for gray images of 256 levels.

    Args:
        state_dict (`Mapping`):
            The tensors of the original, with or without the masks of its convolutions. Weights that a mask sets to 0
            are left out.
        config:
            `image_size`, which pipelines make, is 28 by default, and the `dilations` of the blocks, which the tensors
            do not show, are 1, 2, 1, 4, 1, 2, 1.

    Returns:
        [`GatedPixelCNN`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or do not fit.
    """
    config = checked(config, UVADLC_PIXELCNN_ARGUMENTS)
    check_parts(state_dict, "a PixelCNN of uvadlc_notebooks", "conv_vstack", "conv_hstack", "conv_layers", "conv_out")
    state_dict = {key: tensor for key, tensor in state_dict.items() if not key.endswith(".mask")}
    dilations, blocks = tuple(config.get("dilations", DILATIONS)), count_blocks(state_dict, "conv_layers")
    if len(dilations) != blocks:
        raise ValueError(f"`dilations` must be {blocks} numbers, one for each block, but are {list(dilations)}.")
    kernel = size_of(state_dict, {"conv_vstack.conv.weight": 3, "conv_hstack.conv.weight": 3})
    features = size_of(state_dict, {"conv_vstack.conv.bias": 0, "conv_hstack.conv.bias": 0, "conv_out.weight": 1})
    levels = size_of(state_dict, {"conv_out.bias": 0, "conv_out.weight": 0})

    modules = {"conv_vstack.conv": "vertical_in", "conv_hstack.conv": "horizontal_in", "conv_out": "proj_out"}
    whole = {  # the shapes of weights of which masks leave a part
        "conv_vstack.conv.weight": (features, 1, kernel, kernel),
        "conv_hstack.conv.weight": (features, 1, 1, kernel),
    }
    for index in range(blocks):
        source, target = f"conv_layers.{index}", f"blocks.{index}"
        modules |= {
            f"{source}.conv_vert.conv": f"{target}.conv_vertical",
            f"{source}.conv_horiz.conv": f"{target}.conv_horizontal",
            f"{source}.conv_vert_to_horiz": f"{target}.vertical_to_horizontal",
            f"{source}.conv_horiz_1x1": f"{target}.proj_out",
        }
        whole[f"{source}.conv_vert.conv.weight"] = (2 * features, features, kernel, kernel)
        whole[f"{source}.conv_horiz.conv.weight"] = (2 * features, features, 1, kernel)

    half = kernel // 2

    def prepare(key: str, tensor: torch.Tensor) -> torch.Tensor:
        if key not in whole:
            return tensor
        if tensor.shape[2] == 1:  # of a row, the columns up to the pixel
            return tensor[..., : half + 1]
        return tensor[:, :, : half if key == "conv_vstack.conv.weight" else half + 1]

    net_config = {
        "sample_size": config.get("image_size", IMAGE_SIZE),
        "in_channels": 1,
        "num_levels": levels,
        "hidden_channels": features,
        "kernel_size": kernel,
        "dilations": tuple(int(dilation) for dilation in dilations),
    }
    return load_converted(GatedPixelCNN, net_config, modules, state_dict, prepare, whole)
