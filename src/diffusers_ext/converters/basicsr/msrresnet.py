"""The modified SRResNet of BasicSR, in the layouts before and after its networks were renamed in 2020."""

from diffusers_ext.converters.original_arguments import check_agreement, checked, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks, has, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_msrresnet import MSRResNet


MSRRESNET_ARGUMENTS = dict.fromkeys(("num_in_ch", "num_out_ch", "num_feat", "num_block", "upscale"), positive_integer)


def convert_msrresnet(state_dict: StateDict, **config) -> MSRResNet:
    r"""
    An `MSRResNet` of https://github.com/XPixelGroup/BasicSR.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's constructor. The tensors show all of them, so they must agree with them.

    Returns:
        [`MSRResNet`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, MSRRESNET_ARGUMENTS)
    check_parts(state_dict, "an MSRResNet of BasicSR", "conv_first", "upconv1", "conv_last")
    trunk = "recon_trunk" if has(state_dict, "recon_trunk") else "body"
    width = size_of(state_dict, {"conv_first.weight": 0, "conv_first.bias": 0, "conv_last.weight": 1})
    upscale = 4
    if not has(state_dict, "upconv2"):
        upscale = 3 if size_of(state_dict, {"upconv1.weight": 0, "upconv1.bias": 0}) == 9 * width else 2
    read = {
        "num_in_ch": size_of(state_dict, {"conv_first.weight": 1}),
        "num_out_ch": size_of(state_dict, {"conv_last.weight": 0, "conv_last.bias": 0}),
        "num_feat": width,
        "num_block": count_blocks(state_dict, trunk),
        "upscale": upscale,
    }
    check_agreement(config, config, read)

    modules = {"conv_first": "conv_in", "upconv1": "up_convs.0", "upconv2": "up_convs.1", "conv_last": "conv_out"}
    modules["HRconv" if has(state_dict, "HRconv") else "conv_hr"] = "conv_mid"
    for index in range(read["num_block"]):
        modules |= {f"{trunk}.{index}.{conv}": f"blocks.{index}.{conv}" for conv in ("conv1", "conv2")}
    net_config = {
        "in_channels": read["num_in_ch"],
        "out_channels": read["num_out_ch"],
        "base_channels": width,
        "num_blocks": read["num_block"],
        "scale": upscale,
    }
    return load_converted(MSRResNet, net_config, modules, state_dict)
