"""The networks of StarGAN, plain sequences of layers.

Their instance norms keep statistics of the training, which are left out: the original's command translates in train
mode, where each image is normalized by its own.
"""

from diffusers_ext.converters.original_arguments import check_agreement, checked, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, check_parts, has, layers_of, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models.modeling_stargan import StarGANDiscriminator, StarGANGenerator


BUFFERS = (".running_mean", ".running_var", ".num_batches_tracked")
GENERATOR_ARGUMENTS = dict.fromkeys(("image_size", "c_dim", "g_conv_dim", "g_repeat_num"), positive_integer)
DISCRIMINATOR_ARGUMENTS = dict.fromkeys(("image_size", "c_dim", "d_conv_dim", "d_repeat_num"), positive_integer)
IMAGE_CHANNELS = 3
LEVELS = 2  # how often a generator halves images


def convert_stargan_generator(state_dict: StateDict, **config) -> StarGANGenerator:
    r"""
    A `Generator` of https://github.com/yunjey/stargan.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's command. No tensor shows `image_size`, which is for information only. The
            tensors show the others (`c_dim`, `g_conv_dim`, `g_repeat_num`), which must agree with them if they are
            given.

    Returns:
        [`StarGANGenerator`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, GENERATOR_ARGUMENTS)
    check_parts(state_dict, "a generator of StarGAN", "main.0", "main.1", "main.3", "main.6", "main.9")
    state_dict = {key: tensor for key, tensor in state_dict.items() if not key.endswith(BUFFERS)}
    num_blocks = 0
    while has(state_dict, f"main.{9 + num_blocks}.main"):
        num_blocks += 1
    read = {
        "c_dim": size_of(state_dict, {"main.0.weight": 1}) - IMAGE_CHANNELS,
        "g_conv_dim": size_of(state_dict, {"main.0.weight": 0, "main.1.weight": 0, "main.3.weight": 1}),
        "g_repeat_num": num_blocks,
    }
    check_agreement(config, config, read)

    modules: Modules = {"main.0": "conv_in", "main.1": "norm_in"}
    first_up = 9 + num_blocks
    for level in range(LEVELS):
        for kind, first in (("down", 3), ("up", first_up)):
            modules |= {f"main.{first + 3 * level}": f"{kind}_convs.{level}"}
            modules |= {f"main.{first + 3 * level + 1}": f"{kind}_norms.{level}"}
    for block in range(num_blocks):
        for place, layer in ((0, "conv1"), (1, "norm1"), (3, "conv2"), (4, "norm2")):
            modules[f"main.{9 + block}.main.{place}"] = f"blocks.{block}.{layer}"
    modules[f"main.{first_up + 3 * LEVELS}"] = "conv_out"
    net_config = {
        "sample_size": config.get("image_size"),
        "channels": IMAGE_CHANNELS,
        "num_domains": read["c_dim"],
        "base_channels": read["g_conv_dim"],
        "num_downsamplings": LEVELS,
        "num_blocks": num_blocks,
    }
    return load_converted(StarGANGenerator, net_config, modules, state_dict)


def convert_stargan_discriminator(state_dict: StateDict, **config) -> StarGANDiscriminator:
    r"""
    A `Discriminator` of https://github.com/yunjey/stargan.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's command. The tensors show all of them (`image_size`, `c_dim`, `d_conv_dim`,
            `d_repeat_num`), which must agree with them if they are given.

    Returns:
        [`StarGANDiscriminator`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, DISCRIMINATOR_ARGUMENTS)
    check_parts(state_dict, "a discriminator of StarGAN", "main.0", "conv1", "conv2")
    convs = layers_of(state_dict, "main.", ndim=4)
    read = {
        "image_size": size_of(state_dict, {"conv2.weight": 2}) * 2 ** len(convs),
        "c_dim": size_of(state_dict, {"conv2.weight": 0}),
        "d_conv_dim": size_of(state_dict, {"main.0.weight": 0, "main.0.bias": 0}),
        "d_repeat_num": len(convs),
    }
    check_agreement(config, config, read)
    modules: Modules = {f"main.{conv}": f"convs.{layer}" for layer, conv in enumerate(convs)}
    modules |= {"conv1": "conv_out", "conv2": "domain_head"}
    net_config = {
        "sample_size": read["image_size"],
        "channels": IMAGE_CHANNELS,
        "num_domains": read["c_dim"],
        "base_channels": read["d_conv_dim"],
        "num_layers": len(convs),
    }
    return load_converted(StarGANDiscriminator, net_config, modules, state_dict)
