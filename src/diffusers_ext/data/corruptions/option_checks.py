"""Checks of the options of corruptions and conditions."""

import math
from collections.abc import Sequence

import torch


def check_number(name: str, value: float) -> None:
    """Raises ValueError unless `value` is a finite number."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} must be a number, not {value!r}")


def check_names(name: str, value: str | Sequence[str]) -> list[str]:
    """The list of names in an option that is one name or several; raises ValueError for anything else."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(entry, str) for entry in names):
        raise ValueError(f"{name} must be a name or a list of names, not {value!r}")
    return list(names)


def check_range(name: str, value: float | Sequence[float], least: float, most: float = math.inf) -> tuple:
    """The range (lowest, highest) in an option that is a range or one fixed number.

    Raises:
        ValueError: unless `least` <= lowest <= highest <= `most`.
    """
    bounds = tuple(value) if isinstance(value, (list, tuple)) else (value, value)
    if len(bounds) != 2 or not all(isinstance(bound, (int, float)) for bound in bounds):
        raise ValueError(f"{name} must be a number or two numbers, (lowest, highest), not {value!r}")
    if not least <= bounds[0] <= bounds[1] <= most or bounds[1] == math.inf:
        limits = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{name} must be (lowest, highest), numbers {limits}, not {value!r}")
    return bounds


def check_channels(task: str, images: torch.Tensor, channels: Sequence[int]) -> None:
    """Raises ValueError unless the number of channels of `images` (N, C, H, W) is one of `channels`."""
    if images.shape[1] not in channels:
        raise ValueError(f"{task} needs images of {' or '.join(map(str, channels))} channels, not {images.shape[1]}")
