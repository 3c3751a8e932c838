"""The generator and the discriminator of StyleGAN2-ADA: the names of their blocks show the resolutions."""

from collections.abc import Mapping

from diffusers_ext.converters.original_arguments import (
    anything,
    boolean,
    check_agreement,
    checked,
    one_of,
    positive_integer,
    positive_number,
)
from diffusers_ext.converters.state_dicts import StateDict, first_names, has, size_of
from diffusers_ext.converters.style_filters import load_with_filter, split_filters
from diffusers_ext.converters.weight_mapping import Modules
from diffusers_ext.models.equalized_layers import EQUALIZED_ACTIVATIONS
from diffusers_ext.models.modeling_stylegan2 import ARCHITECTURES, StyleGAN2Discriminator, StyleGAN2Generator


def _optional_positive_number(name: str, value) -> float | None:
    return None if value is None else positive_number(name, value)


def _optional_positive_integer(name: str, value) -> int | None:
    return None if value is None else positive_integer(name, value)


# What tensors show, and must agree with them.
SHOWN = {
    **dict.fromkeys(("z_dim", "w_dim", "img_resolution", "img_channels", "num_layers"), positive_integer),
    "c_dim": anything,
    "mbstd_num_channels": anything,
    "architecture": one_of(*ARCHITECTURES),
    "use_noise": boolean,
}
# What no tensor shows.
HIDDEN = {
    "conv_clamp": _optional_positive_number,
    "lr_multiplier": positive_number,
    "activation": one_of(*EQUALIZED_ACTIVATIONS),
    "mapping_activation": one_of(*EQUALIZED_ACTIVATIONS),
    "mbstd_group_size": _optional_positive_integer,
}
STYLEGAN2_ADA_ARGUMENTS = SHOWN | HIDDEN
OF_GENERATOR = ("z_dim", "w_dim", "use_noise")  # arguments that the other network does not have
OF_DISCRIMINATOR = ("mbstd_num_channels", "mbstd_group_size")
OF_EITHER = ("architecture", "num_layers")  # arguments that both have, with values of their own
# What changes no number, or is only about training, or is seen in the shapes of tensors.
WITHOUT_EFFECT = ("num_fp16_res", "use_fp16", "fp16_channels_last", "channels_last", "channel_base", "channel_max")
WITHOUT_EFFECT += ("freeze_layers", "w_avg_beta", "layer_features", "embed_features", "cmap_dim", "resample_filter")
NESTED_ARGUMENTS = ("mapping_kwargs", "synthesis_kwargs", "block_kwargs", "epilogue_kwargs", "layer_kwargs")


def flat_arguments(arguments: Mapping) -> dict:
    """The original's nested arguments, those in `mapping_kwargs` and the like, as [`convert_stylegan2_ada`] has them.

    Raises:
        ValueError: if one has two values, because the parts of the network differ.
    """
    flat = {}
    for name, value in arguments.items():
        if name in NESTED_ARGUMENTS:
            inner = flat_arguments(value)
            if name == "mapping_kwargs" and "activation" in inner:
                inner["mapping_activation"] = inner.pop("activation")
        else:
            inner = {} if name in WITHOUT_EFFECT else {name: value}
        for key, entry in inner.items():
            if flat.setdefault(key, entry) != entry:
                raise ValueError(f"`{key}` is {flat[key]} in one part of the network and {entry} in another.")
    return flat


def convert_stylegan2_ada(state_dict: StateDict, **config) -> StyleGAN2Generator | StyleGAN2Discriminator:
    r"""
    A `Generator` or `Discriminator` of https://github.com/NVlabs/stylegan2-ada-pytorch, `training/networks.py`.

    Args:
        state_dict (`Mapping`):
            The tensors of the original, such as those of `G_ema` in a `network-snapshot-*.pkl`.
        config:
            Arguments of the original: `conv_clamp`, `lr_multiplier` (0.01), `activation` and `mapping_activation`
            (lrelu), and `mbstd_group_size` (4), which no tensor shows. The others are seen in the tensors, and must
            agree with them if they are given.

    Returns:
        [`StyleGAN2Generator`] or [`StyleGAN2Discriminator`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, STYLEGAN2_ADA_ARGUMENTS)
    taps, state_dict = split_filters(state_dict, ["resample_filter"])
    if "synthesis.b4.const" in state_dict:
        return _generator(state_dict, taps, config)
    if has(state_dict, "b4.out"):
        return _discriminator(state_dict, taps, config)
    raise ValueError(
        "This is no network of StyleGAN2-ADA, which has `synthesis.b4.const` in its generator and `b4.out` in its "
        f"discriminator: its tensors are {first_names(state_dict)}."
    )


def _generator(state_dict: StateDict, taps: tuple, config: dict) -> StyleGAN2Generator:
    sizes = _sizes(state_dict, "synthesis.b")
    last = f"synthesis.b{sizes[-1]}"
    if has(state_dict, "synthesis.b8.skip"):
        architecture = "resnet"
    else:
        architecture = "skip" if has(state_dict, "synthesis.b4.torgb") else "orig"
    mapping = _mapping_arguments(state_dict, config)
    read = {
        "z_dim": size_of(state_dict, {"mapping.fc0.weight": 1}) - (mapping["class_embed_dim"] or 0),
        "c_dim": mapping["num_classes"] or 0,
        "w_dim": size_of(state_dict, {f"{last}.conv1.affine.weight": 1, "synthesis.b4.conv1.affine.weight": 1}),
        "num_layers": mapping["num_mapping_layers"],
        "img_resolution": sizes[-1],
        "img_channels": size_of(state_dict, {f"{last}.torgb.weight": 0, f"{last}.torgb.bias": 0}),
        "architecture": architecture,
        "use_noise": "synthesis.b4.conv1.noise_strength" in state_dict,
    }
    check_agreement(config, config, read)

    modules: Modules = {"synthesis.b4.const": "constant", "mapping.w_avg": "style_average", **_mapping_modules(read)}
    for level, size in enumerate(sizes):
        ours, theirs = f"blocks.{level}", f"synthesis.b{size}"
        for position, conv in enumerate(("conv1",) if level == 0 else ("conv0", "conv1")):
            modules[f"{theirs}.{conv}"] = f"{ours}.convs.{position}"
            modules[f"{theirs}.{conv}.affine"] = f"{ours}.convs.{position}.affine"
            modules[f"{theirs}.{conv}.noise_strength"] = f"{ours}.convs.{position}.noise_strength"
            modules[f"{theirs}.{conv}.noise_const"] = f"{ours}.convs.{position}.noise"
        modules[f"{theirs}.skip"] = f"{ours}.skip"
        modules[f"{theirs}.torgb"] = f"{ours}.to_rgb"
        modules[f"{theirs}.torgb.affine"] = f"{ours}.to_rgb.affine"
    widths = {size: size_of(state_dict, {f"synthesis.b{size}.conv1.{kind}": 0 for kind in KINDS}) for size in sizes}
    arguments = {
        "sample_size": sizes[-1],
        "out_channels": read["img_channels"],
        "latent_dim": read["z_dim"],
        "style_dim": read["w_dim"],
        "block_out_channels": tuple(widths.values()),
        "architecture": architecture,
        "use_noise": read["use_noise"],
        **_network_arguments(config, taps),
        **mapping,
    }
    return load_with_filter(StyleGAN2Generator, arguments, modules, state_dict)


def _discriminator(state_dict: StateDict, taps: tuple, config: dict) -> StyleGAN2Discriminator:
    sizes = _sizes(state_dict, "b")
    if has(state_dict, f"b{sizes[-1]}.skip"):
        architecture = "resnet"
    else:
        architecture = "skip" if has(state_dict, "b4.fromrgb") else "orig"
    widths = {size: size_of(state_dict, {f"b{size}.conv0.{kind}": 0 for kind in KINDS}) for size in sizes[1:]}
    coarsest = size_of(state_dict, {f"b4.{kind}": 0 for kind in ("conv.weight", "conv.bias", "fc.weight", "fc.bias")})
    mapping = _mapping_arguments(state_dict, config)
    read = {
        "c_dim": mapping["num_classes"] or 0,
        "num_layers": mapping["num_mapping_layers"],
        "img_resolution": sizes[-1],
        "img_channels": size_of(state_dict, {f"b{sizes[-1]}.fromrgb.weight": 1}),
        "architecture": architecture,
        "mbstd_num_channels": size_of(state_dict, {"b4.conv.weight": 1}) - coarsest,
    }
    check_agreement(config, config, read)

    modules: Modules = {"b4.fromrgb": "from_rgb", "b4.conv": "conv_out", "b4.fc": "linear", "b4.out": "linear_out"}
    modules |= _mapping_modules(read)
    for level, size in enumerate(reversed(sizes[1:])):
        for part, name in (("fromrgb", "from_rgb"), ("conv0", "conv0"), ("conv1", "conv1"), ("skip", "skip")):
            modules[f"b{size}.{part}"] = f"blocks.{level}.{name}"
    arguments = {
        "sample_size": sizes[-1],
        "in_channels": read["img_channels"],
        "block_out_channels": (coarsest, *widths.values()),
        "architecture": architecture,
        "stddev_group_size": config.get("mbstd_group_size", 4),
        "num_stddev_channels": read["mbstd_num_channels"],
        **_network_arguments(config, taps),
    }
    if mapping["num_classes"] is not None:
        arguments |= mapping | {"projection_dim": size_of(state_dict, {"b4.out.weight": 0, "b4.out.bias": 0})}
    return load_with_filter(StyleGAN2Discriminator, arguments, modules, state_dict)


KINDS = ("weight", "bias")


def _sizes(state_dict: StateDict, prefix: str) -> list[int]:
    """The resolutions of the blocks, 4, 8, 16 ..., up to the first that is missing."""
    sizes = [4]
    while has(state_dict, f"{prefix}{2 * sizes[-1]}"):
        sizes.append(2 * sizes[-1])
    if len(sizes) == 1:
        raise ValueError(f"The checkpoint has no block of 8x8: its tensors are {first_names(state_dict)}.")
    return sizes


def _mapping_arguments(state_dict: StateDict, config: dict) -> dict:
    num_layers = 0
    while has(state_dict, f"mapping.fc{num_layers}"):
        num_layers += 1
    arguments = {"num_mapping_layers": num_layers, "num_classes": None, "class_embed_dim": None}
    if has(state_dict, "mapping.embed"):
        arguments["num_classes"] = size_of(state_dict, {"mapping.embed.weight": 1})
        arguments["class_embed_dim"] = size_of(state_dict, {"mapping.embed.bias": 0, "mapping.embed.weight": 0})
    if num_layers > 1:
        arguments["mapping_dim"] = size_of(state_dict, {f"mapping.fc0.{kind}": 0 for kind in KINDS})
    for name, ours in (("lr_multiplier", "mapping_lr_multiplier"), ("mapping_activation", "mapping_activation")):
        arguments |= {ours: config[name]} if name in config else {}
    return arguments


def _mapping_modules(read: dict) -> Modules:
    layers = {f"mapping.fc{layer}": f"mapping.layers.{layer}" for layer in range(read["num_layers"])}
    return layers | {"mapping.embed": "mapping.class_embedding"}


def _network_arguments(config: dict, taps: tuple) -> dict:
    return {"resample_filter": taps, **{name: config[name] for name in ("activation", "conv_clamp") if name in config}}
