"""Checks of arguments. Each refuses one kind of mistake with a `ValueError` of one sentence."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch


def accepts(function: Callable, argument: str) -> bool:
    """Whether a function has a parameter of this name."""
    return argument in inspect.signature(function).parameters


def is_integer(value: Any) -> bool:
    """Whether a value is an integer of Python or NumPy; a bool is not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is a finite real number of Python or NumPy; a bool is not."""
    is_real = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


def check_positive_int(name: str, value: Any, least: int = 1):
    """Refuses everything but integers of at least `least`."""
    if not is_integer(value) or value < least:
        wanted = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise ValueError(f"`{name}` must be {wanted}, but is {value!r}.")


def check_number(name: str, value: Any):
    """Refuses everything but finite numbers."""
    if not is_number(value):
        raise ValueError(f"`{name}` must be a finite number, but is {value!r}.")


def check_positive(name: str, value: Any):
    """Refuses everything but finite numbers above 0."""
    if not is_number(value) or value <= 0:
        raise ValueError(f"`{name}` must be a positive number, but is {value!r}.")


def check_fraction(name: str, value: Any):
    """Refuses everything but numbers from 0 to less than 1."""
    if not is_number(value) or not 0 <= value < 1:
        raise ValueError(f"`{name}` must be from 0 to less than 1, but is {value!r}.")


def check_choice(name: str, value: Any, choices: Sequence[str]):
    """Refuses everything but the choices."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}, but is {value!r}.")


def check_generator(generator: torch.Generator | list[torch.Generator] | None, count: int):
    """Refuses everything but one generator, a list of `count` of them, one for each result, and `None`."""
    for one in generator if isinstance(generator, list) else [generator]:
        if one is not None and not isinstance(one, torch.Generator):
            raise ValueError(f"`generator` must be a torch.Generator or a list of them, but has {one!r}.")
    if isinstance(generator, list) and len(generator) != count:
        raise ValueError(f"`generator` must be one generator or a list of {count}, but is a list of {len(generator)}.")


def check_latents(latents: torch.Tensor | None, shape: tuple[int | None, ...]):
    """Refuses everything but finite numbers of this shape, in which `None` is any positive number, and `None`."""
    if latents is None:
        return
    fits = torch.is_tensor(latents) and latents.ndim == len(shape)
    if not fits or any(
        size != wanted if wanted is not None else size == 0 for size, wanted in zip(latents.shape, shape, strict=True)
    ):
        wanted = ", ".join("N" if size is None else str(size) for size in shape)
        found = tuple(latents.shape) if torch.is_tensor(latents) else type(latents).__name__
        raise ValueError(f"`latents` must be a tensor of the shape ({wanted}), but is {found}.")
    if not torch.isfinite(latents).all():
        raise ValueError("`latents` must be finite numbers, but has infinities or NaN.")


def check_multiple(what: str, size: int, multiple: int):
    """Refuses the size of an image that a network, which halves images, cannot process. `what` opens the sentence."""
    if size % multiple != 0:
        below = size - size % multiple
        nearest = f"{below} and {below + multiple} are" if below else f"{multiple} is"
        raise ValueError(
            f"{what} must be a multiple of {multiple}, because the network halves images, but is {size}: {nearest} "
            "nearest."
        )


def check_callback_inputs(names: Sequence[str], known: Sequence[str]):
    """Refuses names of tensors that a callback cannot have."""
    for name in names:
        if name not in known:
            raise ValueError(f"`callback_on_step_end_tensor_inputs` must be among {known}, but has {name!r}.")


def check_output_type(output_type: str, channels: int, picture_channels: Sequence[int] = (1, 3, 4)):
    """Refuses unknown kinds of output, and pictures with another number of channels than `picture_channels`."""
    if output_type not in ("pil", "np", "pt"):
        raise ValueError(f"`output_type` must be 'pil', 'np' or 'pt', but is {output_type!r}.")
    if output_type == "pil" and channels not in picture_channels:
        raise ValueError(f"PIL has no images of {channels} channels: pass `output_type='np'` or 'pt'.")


def check_small_input(name: str, value: object, is_super_resolver: bool):
    """Refuses a missing small input of a super-resolver, and one that is given to another pipeline."""
    if value is None and is_super_resolver:
        raise ValueError(f"`{name}` is missing: this pipeline is a super-resolver, and enlarges it.")
    if value is not None and not is_super_resolver:
        raise ValueError(f"`{name}` must be left out, because this pipeline is no super-resolver.")
