"""Instance norms that keep statistics of the training, which the originals use in eval mode.

Their own command calls the networks in train mode instead, where each image is normalized by its own statistics.
"""

from collections.abc import Iterable, Mapping

import torch

from diffusers_ext.converters.original_arguments import one_of
from diffusers_ext.converters.state_dicts import StateDict


STATISTICS = one_of("image", "stored")
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
EPSILON = 1e-5  # PyTorch's default


def without_statistics(state_dict: StateDict, norms: Iterable[str]) -> dict[str, torch.Tensor]:
    """The tensors without the stored statistics of these instance norms."""
    unused = {f"{norm}.{buffer}" for norm in norms for buffer in BUFFERS}
    return {key: tensor for key, tensor in state_dict.items() if key not in unused}


def with_statistics_in_convs(
    state_dict: StateDict, norms: Mapping[str, str], transposed: tuple[str, ...] = ()
) -> dict[str, torch.Tensor]:
    """The tensors with the stored statistics of instance norms in the convolutions before them.

    Args:
        state_dict (`Mapping`): the tensors of the original. Convolutions that lack a tensor stay as they are, so that
            the check of all tensors names it.
        norms (`dict`): from each instance norm to its convolution.
        transposed (`tuple`): the convolutions that are transposed.
    """
    folded = without_statistics(state_dict, norms)
    for norm, conv in norms.items():
        needed = [f"{norm}.running_mean", f"{norm}.running_var", f"{conv}.weight", f"{conv}.bias"]
        if not all(key in state_dict for key in needed):
            continue
        mean, variance, weight, bias = (state_dict[key].float() for key in needed)
        scale = (variance + EPSILON).rsqrt()
        shape = (1, -1, 1, 1) if conv in transposed else (-1, 1, 1, 1)
        folded[f"{conv}.weight"] = weight * scale.view(shape)
        folded[f"{conv}.bias"] = (bias - mean) * scale
    return folded
