"""The generator and the discriminator of SRGAN."""

from diffusers_ext.converters.original_arguments import check_agreement, checked, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, check_parts, has, layers_of, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_srgan_discriminator import SRGANDiscriminator
from diffusers_ext.models.modeling_srresnet import SRResNet


SRGAN_ARGUMENTS = {"scale_factor": positive_integer}
# The layers of a residual block
OF_BLOCK = {"conv1": "conv1", "bn1": "norm1", "prelu": "act", "conv2": "conv2", "bn2": "norm2"}
UP_LAYER = {"conv": "conv", "prelu": "act"}


def convert_srgan(state_dict: StateDict, **config) -> SRResNet | SRGANDiscriminator:
    r"""
    A generator or discriminator of https://github.com/leftthomas/SRGAN. The names of the tensors show which it is.

    Until 2019 the convolution after the generator's blocks had PReLU behind it, since then it has batch norm. The
    tensors show which.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            `scale_factor`, which the tensors of a generator show, so it must agree with them.

    Returns:
        [`SRResNet`] or [`SRGANDiscriminator`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, SRGAN_ARGUMENTS)
    if has(state_dict, "net.0"):
        if config:
            raise ValueError("`scale_factor` is for generators, but the checkpoint is a discriminator.")
        return _convert_discriminator(state_dict)
    check_parts(state_dict, "a network of SRGAN", "block1.0", "block2.conv1")

    num_blocks = 0
    while has(state_dict, f"block{num_blocks + 2}.conv1"):
        num_blocks += 1
    middle, end = f"block{num_blocks + 2}", f"block{num_blocks + 3}"
    num_doublings = 0
    while has(state_dict, f"{end}.{num_doublings}.conv"):
        num_doublings += 1
    check_agreement(config, config, {"scale_factor": 2**num_doublings})

    modules = {"block1.0": "conv_in", "block1.1": "act_in", f"{middle}.0": "conv_mid", f"{middle}.1": "norm_mid"}
    for index in range(num_blocks):
        modules |= {f"block{index + 2}.{name}": f"blocks.{index}.{target}" for name, target in OF_BLOCK.items()}
    for index in range(num_doublings):
        modules |= {f"{end}.{index}.{old}": f"up_layers.{index}.{new}" for old, new in UP_LAYER.items()}
    modules[f"{end}.{num_doublings}"] = "conv_out"
    net_config = {
        "in_channels": size_of(state_dict, {"block1.0.weight": 1}),
        "out_channels": size_of(state_dict, {f"{end}.{num_doublings}.{kind}": 0 for kind in ("weight", "bias")}),
        "base_channels": size_of(state_dict, {"block1.0.weight": 0, "block1.0.bias": 0, "block2.conv1.weight": 0}),
        "num_blocks": num_blocks,
        "scale": 2**num_doublings,
        "trunk_activation": f"{middle}.1.running_mean" not in state_dict,
        "output_activation": "tanh",
    }
    return load_converted(SRResNet, net_config, modules, state_dict)


def _convert_discriminator(state_dict: StateDict) -> SRGANDiscriminator:
    convs = layers_of(state_dict, "net.", ndim=4)
    if len(convs) < 4 or len(convs) % 2 != 0:
        raise ValueError(
            f"This is not a discriminator of SRGAN: it has {len(convs)} convolutions, not 2 for each level and 2 at "
            "the end."
        )
    first, *layers, before_last, last = convs
    modules = {f"net.{first}": "conv_in", f"net.{before_last}": "fc1", f"net.{last}": "fc2"}
    for index, position in enumerate(layers):
        modules |= {f"net.{position}": f"layers.{index}.conv", f"net.{position + 1}": f"layers.{index}.norm"}
    net_config = {
        "in_channels": size_of(state_dict, {f"net.{first}.weight": 1}),
        "base_channels": size_of(state_dict, {f"net.{first}.weight": 0, f"net.{first}.bias": 0}),
        "num_levels": len(convs) // 2 - 1,
    }
    return load_converted(SRGANDiscriminator, net_config, modules, state_dict)
