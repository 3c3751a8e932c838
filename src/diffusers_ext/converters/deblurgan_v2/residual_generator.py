"""The generator of DeblurGAN: CycleGAN's residual network, whose output is added to the image."""

from diffusers_ext.converters.cyclegan_resnet import load_resnet_generator
from diffusers_ext.converters.deblurgan_v2.statistics import (
    STATISTICS,
    with_statistics_in_convs,
)
from diffusers_ext.converters.original_arguments import checked
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.models.modeling_resnet_generator import ResnetGenerator


def convert_deblurgan(state_dict: StateDict, **config) -> ResnetGenerator:
    r"""
    A `ResnetGenerator` of https://github.com/VITA-Group/DeblurGANv2 or https://github.com/KupynOrest/DeblurGAN, with
    instance norm and `learn_residual`.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            `statistics`: `"image"`, the default, normalizes each image by its own statistics, as `predict.py` of the
            original does by calling the network in train mode; `"stored"` uses those of the training.

    Returns:
        [`ResnetGenerator`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown.
    """
    config = checked(config, {"statistics": STATISTICS})
    if config.get("statistics") == "stored":
        return load_resnet_generator(_with_stored_statistics(state_dict), {}, residual=True, normalization="none")
    return load_resnet_generator(state_dict, {}, residual=True, normalization="instance")


def _with_stored_statistics(state_dict: StateDict) -> dict:
    """Each instance norm stands right after its convolution in a sequence of layers."""
    norms, transposed = {}, []
    for key in state_dict:
        if not key.endswith(".running_mean"):
            continue
        norm = key.removesuffix(".running_mean")
        parent, _, position = norm.rpartition(".")
        conv = f"{parent}.{int(position) - 1}"
        norms[norm] = conv
        weight, bias = state_dict.get(f"{conv}.weight"), state_dict.get(f"{conv}.bias")
        if weight is not None and bias is not None and weight.shape[1] == len(bias) != weight.shape[0]:
            transposed.append(conv)
    return with_statistics_in_convs(state_dict, norms, tuple(transposed))
