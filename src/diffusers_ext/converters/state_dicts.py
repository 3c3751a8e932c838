"""What a state dict shows: which modules it has, and which sizes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import torch


# In quotes, so that descriptions of families can be read without importing PyTorch.
StateDict: TypeAlias = "Mapping[str, torch.Tensor]"


def has(state_dict: StateDict, module: str) -> bool:
    return any(key.startswith(f"{module}.") for key in state_dict)


def part(state_dict: StateDict, prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names start with `prefix`, which is removed."""
    return {key.removeprefix(prefix): tensor for key, tensor in state_dict.items() if key.startswith(prefix)}


def count_blocks(state_dict: StateDict, module: str) -> int:
    """How many numbered submodules there are, from 0 to the first number that is missing."""
    count = 0
    while has(state_dict, f"{module}.{count}"):
        count += 1
    return count


def layers_of(state_dict: StateDict, prefix: str, ndim: int) -> list[int]:
    """The positions in a sequence of layers, at most 100, whose weights have `ndim` dimensions."""
    weights = {index: state_dict.get(f"{prefix}{index}.weight") for index in range(100)}
    return [index for index, weight in weights.items() if weight is not None and weight.ndim == ndim]


def size_of(state_dict: StateDict, dimensions: Mapping[str, int]) -> int:
    """The size that most of these tensors have, each in the dimension that is given for it.

    By this vote a single tensor that is missing or has a wrong shape does not change the size, and is reported later.

    Raises:
        ValueError: if the state dict has none of the tensors.
    """
    sizes = [
        state_dict[key].shape[dimension]
        for key, dimension in dimensions.items()
        if key in state_dict and state_dict[key].ndim > dimension
    ]
    if not sizes:
        raise ValueError(f"The checkpoint has none of these tensors: {', '.join(dimensions)}.")
    return most_common(sizes)


def most_common(values: Iterable[int]) -> int:
    return Counter(values).most_common(1)[0][0]


def check_parts(state_dict: StateDict, network: str, *modules: str) -> None:
    """Refuses another network than `network`, naming the first module that is missing."""
    for module in modules:
        if not has(state_dict, module):
            raise ValueError(f"This is not {network}: it has no {module}; its tensors are {first_names(state_dict)}.")


def first_names(state_dict: StateDict) -> str:
    """Some names, for a message about a network that is not the expected one."""
    return f"{', '.join(list(state_dict)[:3])} ..." if state_dict else "none"


def listed(names: list[str], limit: int = 20) -> str:
    """Names for a message: all of a short list, or the first of a long one and the number of the others."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")
