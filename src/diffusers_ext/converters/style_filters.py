"""The low-pass filters of StyleGANs, which their checkpoints repeat at each layer that uses one."""

from collections.abc import Iterable

import torch
from diffusers import ModelMixin

from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.converters.weight_mapping import Modules, load_converted


BUFFER = "filter_taps"  # of our networks
USUAL_TAPS = (1, 3, 3, 1)


def split_filters(state_dict: StateDict, names: Iterable[str]) -> tuple[tuple[float, ...], dict[str, torch.Tensor]]:
    """The filter along one side, and the other tensors.

    Args:
        state_dict (`Mapping`): the tensors of the original.
        names (`Iterable`): the ends of the names of filters, which are `(k,)` or `(k, k)`.

    Returns:
        `tuple`: the taps, which sum to 1 unless they are the usual `(1, 3, 3, 1)`; and the state dict without filters.

    Raises:
        ValueError: if filters differ from each other, or can't be split into one along each side.
    """
    filters = {key: tensor for key, tensor in state_dict.items() if key.endswith(tuple(names))}
    others = {key: tensor for key, tensor in state_dict.items() if key not in filters}
    taps = {key: _taps(key, tensor.float()) for key, tensor in filters.items()}
    first = next(iter(taps.values()), _normalized(torch.tensor(USUAL_TAPS).float()))
    for key, other in taps.items():
        if other.shape != first.shape or not torch.allclose(other, first, atol=1e-6):
            raise ValueError(
                f"The filter {key} differs from the others: networks of several filters are not converted."
            )
    usual = _normalized(torch.tensor(USUAL_TAPS).float())
    if first.shape == usual.shape and torch.allclose(first, usual, atol=1e-6):
        return USUAL_TAPS, others
    return tuple(first.tolist()), others


def load_with_filter(
    model_class: type[ModelMixin], config: dict, modules: Modules, state_dict: StateDict
) -> ModelMixin:
    """As [`load_converted`], with the filter of `config["resample_filter"]`, whatever it sums to."""
    taps = _normalized(torch.tensor(config["resample_filter"], dtype=torch.float32))
    return load_converted(model_class, config, {**modules, BUFFER: BUFFER}, {**state_dict, BUFFER: taps})


def _taps(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """Those along one side, which sum to 1. Filters of doublings are scaled, and sum to 4."""
    taps = _normalized(tensor.sum(dim=1) if tensor.ndim == 2 else tensor)
    whole = torch.outer(taps, taps) * tensor.sum() if tensor.ndim == 2 else tensor
    if tensor.ndim not in (1, 2) or whole.shape != tensor.shape or not torch.allclose(whole, tensor, atol=1e-5):
        raise ValueError(f"The filter {key} is not the same along both sides: such networks are not converted.")
    return taps


def _normalized(taps: torch.Tensor) -> torch.Tensor:
    return taps / taps.sum()
