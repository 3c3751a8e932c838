"""The generator of context_encoder_pytorch, a plain sequence of layers."""

from diffusers_ext.converters.original_arguments import (
    check_agreement,
    checked,
    non_negative_integer,
    positive_integer,
)
from diffusers_ext.converters.state_dicts import StateDict, first_names, layers_of, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models.modeling_context_encoder import ContextEncoder


CONVOLUTIONS = [0, 2, 5, 8, 11, 14, 17, 20, 23, 26, 29]  # their positions in `main`
TARGETS = ["down_layers.0", "down_layers.1", "down_layers.2", "down_layers.3", "bottleneck_in", "bottleneck_out"]
TARGETS += ["up_layers.0", "up_layers.1", "up_layers.2"]
OVERLAP = 4  # the default of the original's command
CONTEXT_ENCODER_ARGUMENTS = {
    **dict.fromkeys(("nc", "nef", "ngf", "nBottleneck"), positive_integer),
    "overlapPred": non_negative_integer,
}


def convert_context_encoder(state_dict: StateDict, **config) -> ContextEncoder:
    r"""
    A `_netG` of https://github.com/BoyuanJiang/context_encoder_pytorch, as wide in its decoder as in its encoder.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's command. No tensor shows `overlapPred`, by default 4: how wide a margin of the
            centre was visible. The tensors show the others (`nc`, `nef`, `ngf`, `nBottleneck`), which must agree with
            them if they are given.

    Returns:
        [`ContextEncoder`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, CONTEXT_ENCODER_ARGUMENTS)
    convs = layers_of(state_dict, "main.", ndim=4)
    if convs != CONVOLUTIONS:
        found = f"it has convolutions at {convs} of `main`" if convs else f"its tensors are {first_names(state_dict)}"
        raise ValueError(
            f"This is not a generator of context_encoder_pytorch, which has convolutions at {CONVOLUTIONS} of `main`: "
            f"{found}."
        )
    width = size_of(state_dict, {"main.0.weight": 0, "main.2.weight": 1, "main.29.weight": 0})
    read = {
        "nc": size_of(state_dict, {"main.0.weight": 1, "main.29.weight": 1}),
        "nef": width,
        "ngf": size_of(state_dict, {"main.29.weight": 0}),
        "nBottleneck": size_of(state_dict, {"main.14.weight": 0, "main.17.weight": 0}),
    }
    check_agreement(config, config, read)
    modules: Modules = {"main.0": "conv_in", "main.29": "conv_out"}
    for conv, target in zip(CONVOLUTIONS[1:-1], TARGETS, strict=True):
        modules |= {f"main.{conv}": f"{target}.conv", f"main.{conv + 1}": f"{target}.norm"}
    net_config = {
        "in_channels": read["nc"],
        "out_channels": read["nc"],
        "base_channels": width,
        "bottleneck_channels": read["nBottleneck"],
        "overlap": config.get("overlapPred", OVERLAP),
    }
    return load_converted(ContextEncoder, net_config, modules, state_dict)
