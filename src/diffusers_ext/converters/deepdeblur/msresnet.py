"""The multi-scale network of DeepDeblur-PyTorch."""

import torch

from diffusers_ext.converters.original_arguments import check_agreement, checked, positive_integer, positive_number
from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_deepdeblur import DeepDeblurNet


DEEPDEBLUR_ARGUMENTS = {
    **dict.fromkeys(("n_resblocks", "n_feats", "kernel_size", "n_scales"), positive_integer),
    "rgb_range": positive_number,
}


def convert_deepdeblur(state_dict: StateDict, **config) -> DeepDeblurNet:
    r"""
    An `MSResNet` of https://github.com/SeungjunNah/DeepDeblur-PyTorch.

    Its first and last convolutions are scaled, so that images are in [0, 1] instead of [0, `rgb_range`].

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's command. No tensor shows `rgb_range`, by default 255. The tensors show the
            others (`n_resblocks`, `n_feats`, `kernel_size`, `n_scales`), which must agree with them if they are given.

    Returns:
        [`DeepDeblurNet`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, DEEPDEBLUR_ARGUMENTS)
    white = config.get("rgb_range", 255)
    check_parts(state_dict, "an MSResNet of DeepDeblur-PyTorch", "body_models.0.body.0")
    num_scales = count_blocks(state_dict, "body_models")
    num_blocks = count_blocks(state_dict, "body_models.0.body") - 2
    last = f"body.{num_blocks + 1}"
    first_weight = "body_models.0.body.0.weight"
    read = {
        "n_resblocks": num_blocks,
        "n_feats": size_of(state_dict, {first_weight: 0, "body_models.0.body.0.bias": 0}),
        "kernel_size": size_of(state_dict, {first_weight: 2}),
        "n_scales": num_scales,
    }
    check_agreement(config, config, read)

    modules = {}
    for scale in range(num_scales):
        source, target = f"body_models.{scale}", f"bodies.{scale}"
        modules |= {f"{source}.body.0": f"{target}.conv_in", f"{source}.{last}": f"{target}.conv_out"}
        for block in range(num_blocks):
            modules |= {
                f"{source}.body.{block + 1}.body.{2 * conv}": f"{target}.blocks.{block}.conv{conv + 1}"
                for conv in (0, 1)
            }
        if scale > 0:
            modules[f"conv_end_models.{scale}.uppath.0"] = f"up_convs.{scale - 1}"

    def scaled(key: str, tensor: torch.Tensor) -> torch.Tensor:
        if key.endswith(".body.0.weight") and key.count(".body.") == 1:
            return tensor * white
        return tensor / white if f".{last}." in key or key.endswith(".uppath.0.bias") else tensor

    channels = size_of(state_dict, {f"body_models.{scale}.{last}.bias": 0 for scale in range(num_scales)})
    net_config = {
        "in_channels": channels,
        "out_channels": channels,
        "base_channels": read["n_feats"],
        "num_blocks": num_blocks,
        "num_scales": num_scales,
        "kernel_size": read["kernel_size"],
    }
    return load_converted(DeepDeblurNet, net_config, modules, state_dict, scaled)
