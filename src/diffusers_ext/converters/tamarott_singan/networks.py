"""The networks of a scale of tamarott/SinGAN: a head, numbered blocks and a tail."""

import torch

from diffusers_ext.converters.state_dicts import StateDict, first_names, has, size_of
from diffusers_ext.converters.weight_mapping import COUNTER, Modules, load_converted
from diffusers_ext.models.modeling_singan import SinGANDiscriminator, SinGANScale


def convert_singan(state_dict: StateDict, normalization: str = "instance") -> SinGANScale | SinGANDiscriminator:
    r"""
    A `GeneratorConcatSkip2CleanAdd` or `WDiscriminator` of https://github.com/tamarott/SinGAN.

    Args:
        state_dict (`Mapping`):
            The tensors of the original network, from `netG.pth` or `netD.pth`.
        normalization (`str`, defaults to `"instance"`):
            `"instance"`: as the original trains and samples, in training mode with one image; its running statistics
            are left out. `"batch"`: with running statistics, as in evaluation mode.

    Returns:
        [`SinGANScale`] or [`SinGANDiscriminator`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes.
    """
    is_generator = has(state_dict, "tail.0")
    tail = "tail.0" if is_generator else "tail"
    if not has(state_dict, "head.conv") or not has(state_dict, tail):
        raise ValueError(
            "This is no network of SinGAN, which has a `head` and a `tail`: its tensors are "
            f"{first_names(state_dict)}."
        )
    blocks = ["head"]
    while has(state_dict, f"body.block{len(blocks)}.conv"):
        blocks.append(f"body.block{len(blocks)}")
    modules: Modules = {tail: "layers.conv_out"}
    for number, block in enumerate(blocks):
        modules |= {f"{block}.conv": f"layers.convs.{number}", f"{block}.norm": f"layers.norms.{number}"}
    weight = state_dict["head.conv.weight"]
    arguments = {
        "num_channels": size_of(state_dict, {"head.conv.weight": 1}),
        "layer_channels": tuple(size_of(state_dict, {f"{block}.conv.weight": 0}) for block in blocks),
        "kernel_size": weight.shape[-1] if isinstance(weight, torch.Tensor) else 3,
        "normalization": normalization,
    }
    if normalization == "instance":
        unused = ("running_mean", "running_var", COUNTER)
        state_dict = {key: tensor for key, tensor in state_dict.items() if not key.endswith(unused)}
    return load_converted(SinGANScale if is_generator else SinGANDiscriminator, arguments, modules, state_dict)
