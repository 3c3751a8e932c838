"""The Progressive GAN of mmgeneration: its layers are numbered, two for each resolution."""

import math

import torch

from diffusers_ext.converters.original_arguments import (
    boolean,
    check_agreement,
    checked,
    class_count,
    positive_integer,
)
from diffusers_ext.converters.state_dicts import StateDict, count_blocks, first_names, has, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models.modeling_progressive_gan import ProgressiveDiscriminator, ProgressiveGenerator


OF_GENERATOR = ("noise_size", "out_scale", "fused_upconv")
OF_DISCRIMINATOR = ("in_scale", "fused_convdown", "group_size")
PROGRESSIVE_GAN_ARGUMENTS = {
    **dict.fromkeys(("noise_size", "out_scale", "in_scale", "group_size"), positive_integer),
    **dict.fromkeys(("fused_upconv", "fused_convdown"), boolean),
    "label_size": class_count,
}


def convert_progressive_gan(state_dict: StateDict, **config) -> ProgressiveGenerator | ProgressiveDiscriminator:
    r"""
    A `PGGANGenerator` or `PGGANDiscriminator` of https://github.com/open-mmlab/mmgeneration.

    Args:
        state_dict (`Mapping`):
            The tensors of the original network.
        config:
            Arguments of the original. No tensor shows `fused_upconv` (True) of a generator, `fused_convdown` (True) of
            a discriminator, the `group_size` (4) of its `mbstd_cfg`, nor how many inputs of a generator are labels:
            `label_size` (0). The others are seen in the tensors, and must agree with them if they are given.

    Returns:
        [`ProgressiveGenerator`] or [`ProgressiveDiscriminator`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, PROGRESSIVE_GAN_ARGUMENTS)
    if has(state_dict, "noise2feat"):
        return _growing_generator(state_dict, config)
    if has(state_dict, "decision"):
        return _growing_discriminator(state_dict, config)
    raise ValueError(
        "This is no Progressive GAN of mmgeneration, which has `noise2feat` in its generator and `decision` in its "
        f"discriminator: its tensors are {first_names(state_dict)}."
    )


def _growing_generator(state_dict: StateDict, config: dict) -> ProgressiveGenerator:
    num_blocks, label_size = count_blocks(state_dict, "torgb_layers"), config.get("label_size") or 0
    read = {
        "noise_size": size_of(state_dict, {"noise2feat.linear.weight_orig": 1}) - label_size,
        "out_scale": 4 * 2 ** (num_blocks - 1),
    }
    check_agreement(config, config, read)
    widths = [
        size_of(state_dict, {f"torgb_layers.{level}.conv.weight_orig": 1, f"conv_blocks.{2 * level}.conv.bias": 0})
        for level in range(num_blocks)
    ]
    modules: Modules = {"noise2feat.linear.weight_orig": "linear_in.weight", "noise2feat.bias": "bias_in"}
    transposed = {}
    for level in range(num_blocks):
        modules |= _layer(f"torgb_layers.{level}.conv", f"to_rgb.{level}")
        convs = [0] if level == 0 else [2 * level - 1, 2 * level]
        for position, number in enumerate(convs):
            modules |= _layer(f"conv_blocks.{number}.conv", f"blocks.{level}.{position}")
        if level > 0 and config.get("fused_upconv", True):
            transposed[f"conv_blocks.{convs[0]}.conv.weight_orig"] = (widths[level - 1], widths[level], 3, 3)

    def prepare(key: str, tensor: torch.Tensor) -> torch.Tensor:
        """A transposed convolution becomes one of enlarged features, with another factor of its learning rate."""
        if key not in transposed:
            return tensor
        inputs, outputs = tensor.shape[:2]
        return tensor.transpose(0, 1).flip(2, 3) * math.sqrt(inputs / outputs)

    arguments = {
        "sample_size": read["out_scale"],
        "out_channels": size_of(state_dict, {"torgb_layers.0.conv.weight_orig": 0, "torgb_layers.0.conv.bias": 0}),
        "latent_dim": read["noise_size"],
        "block_out_channels": tuple(widths),
        "num_classes": label_size or None,
    }
    bias = state_dict.get("noise2feat.bias")
    if bias is not None and bias.ndim == 4:
        state_dict = {**state_dict, "noise2feat.bias": bias.flatten()}
    return load_converted(ProgressiveGenerator, arguments, modules, state_dict, prepare, transposed)


def _growing_discriminator(state_dict: StateDict, config: dict) -> ProgressiveDiscriminator:
    num_blocks = count_blocks(state_dict, "fromrgb_layers")
    outputs = size_of(state_dict, {"decision.linear1.weight_orig": 0, "decision.linear1.bias": 0})
    read = {"in_scale": 4 * 2 ** (num_blocks - 1), "label_size": outputs - 1}
    check_agreement(config, config, read)
    modules: Modules = _layer("decision.linear0", "linear") | _layer("decision.linear1", "linear_out")
    for level in range(num_blocks):
        modules |= _layer(f"fromrgb_layers.{level}.conv", f"from_rgb.{level}")
        for position, number in enumerate((2 * level - 1, 2 * level) if level > 0 else ()):
            modules |= _layer(f"conv_blocks.{number}.conv", f"blocks.{level - 1}.{position}")
    arguments = {
        "sample_size": read["in_scale"],
        "in_channels": size_of(state_dict, {"fromrgb_layers.0.conv.weight_orig": 1}),
        "block_out_channels": tuple(
            size_of(state_dict, {f"fromrgb_layers.{level}.conv.{kind}": 0 for kind in ("weight_orig", "bias")})
            for level in range(num_blocks)
        ),
        "hidden_dim": size_of(state_dict, {"decision.linear0.weight_orig": 0, "decision.linear0.bias": 0}),
        "num_classes": read["label_size"] or None,
        "pools_first": config.get("fused_convdown", True),
        "stddev_group_size": config.get("group_size", 4),
    }
    # The original has a convolution at 4x4 that it never uses.
    used = {key: tensor for key, tensor in state_dict.items() if not key.startswith("conv_blocks.0.")}
    return load_converted(ProgressiveDiscriminator, arguments, modules, used)


def _layer(theirs: str, ours: str) -> Modules:
    return {f"{theirs}.weight_orig": f"{ours}.weight", f"{theirs}.bias": f"{ours}.bias"}
