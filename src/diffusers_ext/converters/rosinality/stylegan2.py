"""The StyleGAN2 of rosinality: its layers are numbered, two for each resolution."""

import torch

from diffusers_ext.converters.original_arguments import check_agreement, checked, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, count_blocks, first_names, has, size_of
from diffusers_ext.converters.style_filters import load_with_filter, split_filters
from diffusers_ext.converters.weight_mapping import Modules
from diffusers_ext.models.modeling_stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator


STYLEGAN2_ROSINALITY_ARGUMENTS = dict.fromkeys(("size", "style_dim", "n_mlp"), positive_integer)
FILTERS = ("blur.kernel", "upsample.kernel", "conv2.0.kernel", "skip.0.kernel")


def convert_stylegan2_rosinality(state_dict: StateDict, **config) -> StyleGAN2Generator | StyleGAN2Discriminator:
    r"""
    A `Generator` or `Discriminator` of https://github.com/rosinality/stylegan2-pytorch, `model.py`.

    Args:
        state_dict (`Mapping`):
            The tensors of the original, and perhaps `latent_avg`, the average style beside them in a checkpoint.
            Without it the average is measured, as by the original's `mean_latent`.
        config:
            Arguments of the original: `size`, `style_dim`, `n_mlp`. The tensors show all of them, and they must agree
            with the tensors if they are given.

    Returns:
        [`StyleGAN2Generator`] or [`StyleGAN2Discriminator`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, STYLEGAN2_ROSINALITY_ARGUMENTS)
    taps, state_dict = split_filters(state_dict, FILTERS)
    if has(state_dict, "input") and has(state_dict, "to_rgb1"):
        return _styled_generator(state_dict, taps, config)
    if has(state_dict, "final_conv") and has(state_dict, "final_linear"):
        return _residual_discriminator(state_dict, taps, config)
    raise ValueError(
        "This is no network of rosinality's StyleGAN2, which has `to_rgb1` in its generator and `final_conv` in its "
        f"discriminator: its tensors are {first_names(state_dict)}."
    )


def _styled_generator(state_dict: StateDict, taps: tuple, config: dict) -> StyleGAN2Generator:
    num_doublings = count_blocks(state_dict, "to_rgbs")
    num_layers = 0
    while has(state_dict, f"style.{num_layers + 1}"):  # the first one normalizes latents
        num_layers += 1
    read = {
        "size": 4 * 2**num_doublings,
        "style_dim": size_of(state_dict, {"style.1.weight": 1, "conv1.conv.modulation.weight": 1}),
        "n_mlp": num_layers,
    }
    check_agreement(config, config, read)

    modules: Modules = {"input.input": "constant", "latent_avg": "style_average"}
    modules |= {f"style.{layer + 1}": f"mapping.layers.{layer}" for layer in range(num_layers)}
    names = ["conv1", *(f"convs.{position}" for position in range(2 * num_doublings))]
    images = ["to_rgb1", *(f"to_rgbs.{position}" for position in range(num_doublings))]
    for number, name in enumerate(names):
        level, position = (number + 1) // 2, 0 if number == 0 else (number - 1) % 2
        ours = f"blocks.{level}.convs.{position}"
        modules |= {f"{name}.conv.weight": f"{ours}.weight", f"{name}.activate.bias": f"{ours}.bias"}
        modules[f"{name}.conv.modulation"] = f"{ours}.affine"
        modules[f"{name}.noise.weight"] = f"{ours}.noise_strength"
        modules[f"noises.noise_{number}"] = f"{ours}.noise"
    for level, name in enumerate(images):
        ours = f"blocks.{level}.to_rgb"
        modules |= {f"{name}.conv.weight": f"{ours}.weight", f"{name}.bias": f"{ours}.bias"}
        modules[f"{name}.conv.modulation"] = f"{ours}.affine"

    widths = [size_of(state_dict, {"conv1.conv.weight": 1, "conv1.activate.bias": 0})]
    for level in range(num_doublings):
        conv = f"convs.{2 * level + 1}"
        widths.append(size_of(state_dict, {f"{conv}.conv.weight": 1, f"{conv}.activate.bias": 0}))
    arguments = {
        "sample_size": read["size"],
        "out_channels": size_of(state_dict, {"to_rgb1.conv.weight": 1, "to_rgb1.bias": 1}),
        "latent_dim": read["style_dim"],
        "style_dim": read["style_dim"],
        "num_mapping_layers": num_layers,
        "block_out_channels": tuple(widths),
        "resample_filter": taps,
        "demodulates_scaled_weights": True,
    }
    has_average = "latent_avg" in state_dict
    if not has_average:
        state_dict = {**state_dict, "latent_avg": torch.zeros(read["style_dim"])}
    generator = load_with_filter(StyleGAN2Generator, arguments, modules, _without_leading_ones(state_dict))
    if not has_average:
        generator.measure_style_average()
    return generator


def _residual_discriminator(state_dict: StateDict, taps: tuple, config: dict) -> StyleGAN2Discriminator:
    num_blocks = count_blocks(state_dict, "convs") - 1
    if num_blocks < 1:
        raise ValueError(f"The checkpoint has no residual block: its tensors are {first_names(state_dict)}.")
    read = {"size": 4 * 2**num_blocks}
    check_agreement(config, config, read)

    layers = {"convs.0": "blocks.0.from_rgb", "final_conv": "conv_out"}  # by where their weight and bias are
    modules: Modules = {"final_linear.0": "linear", "final_linear.1": "linear_out"}
    widths = [size_of(state_dict, {"convs.0.0.weight": 0, "convs.0.1.bias": 0})]
    for level in range(num_blocks):
        theirs, ours = f"convs.{level + 1}", f"blocks.{level}"
        layers[f"{theirs}.conv1"] = f"{ours}.conv0"
        modules |= {f"{theirs}.conv2.1.weight": f"{ours}.conv1.weight", f"{theirs}.conv2.2.bias": f"{ours}.conv1.bias"}
        modules[f"{theirs}.skip.1"] = f"{ours}.skip"
        widths.append(size_of(state_dict, {f"{theirs}.conv2.1.weight": 0, f"{theirs}.conv2.2.bias": 0}))
    for theirs, ours in layers.items():
        modules |= {f"{theirs}.0.weight": f"{ours}.weight", f"{theirs}.1.bias": f"{ours}.bias"}
    arguments = {
        "sample_size": read["size"],
        "in_channels": size_of(state_dict, {"convs.0.0.weight": 1}),
        "block_out_channels": tuple(reversed(widths)),
        "resample_filter": taps,
    }
    return load_with_filter(StyleGAN2Discriminator, arguments, modules, state_dict)


def _without_leading_ones(state_dict: StateDict) -> dict[str, torch.Tensor]:
    """The tensors of a generator, which has its weights, constant, noise and biases of images as batches of one."""
    bare = {}
    for key, tensor in state_dict.items():
        number = 2 if key.startswith("noises.") else 1
        is_batch = key.startswith(("noises.", "input.")) or key.endswith(".conv.weight") or tensor.ndim == 4
        if is_batch and tensor.ndim > number and tensor.shape[:number] == (1,) * number:
            tensor = tensor.squeeze(tuple(range(number)))
        bare[key] = tensor
    return bare
