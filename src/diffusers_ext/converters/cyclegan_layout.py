"""Normalizations and biases of the originals, which this package's networks do not have in the same form.

With instance norm, the originals give a bias to every convolution, and the normalization removes it again: this
package's convolutions have none there. Without instance norm, the originals give no bias even to convolutions that no
normalization follows: this package's have a bias of zeros there.
"""

from collections.abc import Mapping

import torch
from diffusers import ModelMixin

from diffusers_ext.converters.original_arguments import boolean, check_agreement, one_of, positive_integer
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.converters.weight_mapping import Modules, load_converted


DROPOUT = 0.5
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
NORM = one_of("batch", "instance", "none")
GENERATOR_ARGUMENTS = {
    "input_nc": positive_integer,
    "output_nc": positive_integer,
    "ngf": positive_integer,
    "norm": NORM,
    "use_dropout": boolean,
}


def read_normalization(state_dict: StateDict, convs: Modules, biased: tuple[str, ...], norms: Modules) -> str:
    """The kind of normalization: `"batch"`, `"instance"` or `"none"`.

    Only batch norm has parameters. With instance norm, all of `convs` have biases, otherwise only those in `biased`.
    """
    if any(f"{norm}.weight" in state_dict for norm in norms):
        return "batch"
    return "instance" if any(f"{conv}.bias" in state_dict for conv in convs if conv not in biased) else "none"


def check_against(config: Mapping, normalization: str, channels: dict[str, int], **read) -> None:
    """Refuses an argument that contradicts the checkpoint.

    Args:
        config (`Mapping`): checked arguments.
        normalization (`str`): what [`read_normalization`] returned.
        channels (`dict`): `in_channels`, and `out_channels` of a generator.
        read: what else the checkpoint shows, by the names of the arguments.
    """
    read |= {"norm": normalization, "input_nc": channels["in_channels"]}
    if "out_channels" in channels:
        read["output_nc"] = channels["out_channels"]
    check_agreement(config, config, read)


def load_network(
    model_class: type[ModelMixin],
    config: dict,
    convs: Modules,
    biased: tuple[str, ...],
    norms: Modules,
    state_dict: StateDict,
) -> ModelMixin:
    """The network, after biases that it does not have were removed and missing ones were added.

    Args:
        model_class (`type`): the class of the network.
        config (`dict`): the arguments of its constructor.
        convs (`dict`): the counterpart of each convolution of the original.
        biased (`tuple`): the convolutions that have a bias in the original, whatever the normalization.
        norms (`dict`): the counterpart of each normalization of the original.
        state_dict (`Mapping`): the original's tensors.
    """
    with torch.device("meta"):
        expected = model_class(**config).state_dict()
    tensors = dict(state_dict)
    for source, target in convs.items():
        if config["normalization"] == "instance" and f"{target}.bias" not in expected:
            tensors.pop(f"{source}.bias", None)
        elif config["normalization"] != "instance" and f"{target}.bias" in expected and source not in biased:
            tensors.setdefault(f"{source}.bias", torch.zeros(expected[f"{target}.bias"].shape))
    if config["normalization"] == "instance":
        # statistics that PyTorch before 0.4 saved and nothing uses
        for source in norms:
            for buffer in BUFFERS:
                tensors.pop(f"{source}.{buffer}", None)
    return load_converted(model_class, config, {**convs, **norms}, tensors)
