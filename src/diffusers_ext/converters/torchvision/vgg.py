"""The convolutions of torchvision's VGG networks."""

import re

from diffusers_ext.converters.original_arguments import checked
from diffusers_ext.converters.state_dicts import StateDict, first_names, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_vgg import VGG


# `features.7.weight`, or in a part of the network, as fast neural style has them, `slice2.7.weight`
LAYER = re.compile(r"((?:features|slice\d+)\.(\d+))\.(?:weight|bias)$")


def convert_torchvision_vgg(state_dict: StateDict, **config) -> VGG:
    r"""
    The convolutions of a `VGG` of https://github.com/pytorch/vision, without batch norm.

    Images are in `[0, 1]`, and are normalized in the network. The dense layers of the classifier are left out.

    Args:
        state_dict (`Mapping`):
            The tensors of the original, or of the `Vgg16` of `fast_neural_style` in
            https://github.com/pytorch/examples, which has the same names in four parts.
        config:
            Must be empty, because the tensors show everything.

    Returns:
        [`VGG`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if there are arguments.
    """
    checked(config, {})
    names = {int(found[2]): found[1] for found in map(LAYER.match, state_dict) if found}
    if 0 not in names or any(".running_" in key for key in state_dict):
        raise ValueError(
            f"This is not a VGG of torchvision without batch norm; its tensors are {first_names(state_dict)}."
        )
    # A ReLU follows each convolution, and a pooling layer each level.
    levels, positions = [[]], sorted(names)
    for before, position in zip([positions[0], *positions[:-1]], positions, strict=True):
        if position - before not in (0, 2, 3):
            raise ValueError(f"This VGG lacks layers between {names[before]} and {names[position]}.")
        if position - before == 3:
            levels.append([])
        levels[-1].append(names[position])
    modules = {
        name: f"blocks.{level}.{index}" for level, block in enumerate(levels) for index, name in enumerate(block)
    }
    net_config = {
        "block_out_channels": tuple(
            size_of(state_dict, {f"{name}.{kind}": 0 for name in block for kind in ("weight", "bias")})
            for block in levels
        ),
        "layers_per_block": tuple(map(len, levels)),
    }
    kept = {key: tensor for key, tensor in state_dict.items() if not key.startswith("classifier.")}
    return load_converted(VGG, net_config, modules, kept)
