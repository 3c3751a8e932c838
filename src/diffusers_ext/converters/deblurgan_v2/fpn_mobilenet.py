"""The feature pyramid of DeblurGAN-v2 over MobileNetV2."""

import re

from diffusers_ext.converters.deblurgan_v2.statistics import (
    STATISTICS,
    with_statistics_in_convs,
    without_statistics,
)
from diffusers_ext.converters.original_arguments import checked
from diffusers_ext.converters.state_dicts import StateDict, check_parts, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_fpn_mobilenet import MOBILENET_STAGES, FPNMobileNet


# The backbone is saved twice: by its layers, and once more as the five parts that the pyramid uses.
SECOND_COPY = re.compile(r"fpn\.enc\d\.")
PYRAMID_NORMS = {"fpn.td1": "top_down.0", "fpn.td2": "top_down.1", "fpn.td3": "top_down.2"}
PYRAMID_NORMS |= {"smooth": "smooth1", "smooth2": "smooth2"}


def convert_fpn_mobilenet(state_dict: StateDict, **config) -> FPNMobileNet:
    r"""
    An `FPNMobileNet` of https://github.com/VITA-Group/DeblurGANv2, with instance norm in its pyramid.

    The last layers of its backbone, which the original keeps but does not use, are left out.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            `statistics`: `"image"`, the default, normalizes each image by its own statistics, as `predict.py` of the
            original does by calling the network in train mode; `"stored"` uses those of the training.

    Returns:
        [`FPNMobileNet`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown.
    """
    config = checked(config, {"statistics": STATISTICS})
    is_stored = config.get("statistics") == "stored"
    check_parts(state_dict, "an FPNMobileNet of DeblurGAN-v2", "fpn.features", "fpn.td1", "head1", "smooth2", "final")
    last = sum(num_blocks for _, num_blocks, _ in MOBILENET_STAGES)
    state_dict = {
        key: tensor for key, tensor in state_dict.items() if not SECOND_COPY.match(key) and not _is_unused(key, last)
    }

    modules, backbone_norms, widths = {"fpn.lateral0": "lateral_in", "final": "conv_out"}, [], []
    position = 1
    for stage, (expansion, num_blocks, _) in enumerate(MOBILENET_STAGES):
        for block in range(num_blocks):
            layers = ("expand", "depthwise", "project")[expansion == 1 :]
            for index, layer in enumerate(layers):
                source, target = f"fpn.features.{position}.conv", f"stages.{stage}.{block}.{layer}"
                modules |= {f"{source}.{3 * index}": f"{target}.conv", f"{source}.{3 * index + 1}": f"{target}.norm"}
                backbone_norms.append(f"{source}.{3 * index + 1}")
            position += 1
        widths.append(size_of(state_dict, {f"{source}.{3 * index}.weight": 0, f"{source}.{3 * index + 1}.weight": 0}))
    modules |= {"fpn.features.0.0": "layer_in.conv", "fpn.features.0.1": "layer_in.norm"}
    backbone_norms.append("fpn.features.0.1")
    for index in range(4):
        modules[f"fpn.lateral{index + 1}"] = f"laterals.{index}"
        modules |= {f"head{4 - index}.block{conv}": f"heads.{index}.conv{conv + 1}" for conv in (0, 1)}
    modules |= {f"{source}.0": f"{target}.conv" for source, target in PYRAMID_NORMS.items()}

    norms = {f"{source}.1": f"{source}.0" for source in PYRAMID_NORMS}
    if is_stored:
        state_dict = with_statistics_in_convs(state_dict, norms)
    else:  # which cancel the biases
        state_dict = without_statistics(state_dict, [*norms, *backbone_norms])
        biases = {f"{conv}.bias" for conv in norms.values()}
        state_dict = {key: tensor for key, tensor in state_dict.items() if key not in biases}
    channels = size_of(state_dict, {"fpn.features.0.0.weight": 1, "final.weight": 0})
    net_config = {
        "in_channels": channels,
        "out_channels": channels,
        "backbone_channels": (size_of(state_dict, {"fpn.features.0.0.weight": 0}), *widths),
        "pyramid_channels": size_of(state_dict, {f"fpn.lateral{index}.weight": 0 for index in range(1, 5)}),
        "backbone_normalization": "batch" if is_stored else "instance",
        "normalization": "none" if is_stored else "instance",
    }
    return load_converted(FPNMobileNet, net_config, modules, state_dict)


def _is_unused(key: str, last: int) -> bool:
    """Whether a tensor belongs to a layer of the backbone after the last one that the pyramid uses."""
    match = re.match(r"fpn\.features\.(\d+)\.", key)
    return match is not None and int(match[1]) > last
