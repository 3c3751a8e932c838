"""The arguments of the original networks: of which kind each one is, and whether they agree with the checkpoint.

A kind is a function `kind(name, value)` that returns the value to use, or raises a `ValueError` which names the
argument and says what it must be. A family describes its arguments by a mapping from their names to their kinds.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any


Kind = Callable[[str, Any], Any]


def checked(config: Mapping, arguments: Mapping[str, Kind]) -> dict:
    """The arguments, each checked by its kind.

    Raises:
        ValueError: if an argument is unknown or of the wrong kind.
    """
    for name in config:
        if name not in arguments:
            known = ", ".join(arguments) or "none"
            raise ValueError(f"There is no argument {name!r}. The known arguments are: {known}.")
    return {name: arguments[name](name, value) for name, value in config.items()}


def anything(name: str, value):
    """For an argument that is only compared with the checkpoint, or checked later."""
    return value


def positive_integer(name: str, value) -> int:
    if not _is_integer(value) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, but is {value!r}.")
    return value


def non_negative_integer(name: str, value) -> int:
    if not _is_integer(value) or value < 0:
        raise ValueError(f"`{name}` must be an integer of at least 0, but is {value!r}.")
    return value


def positive_number(name: str, value) -> float:
    if not _is_number(value) or value <= 0:
        raise ValueError(f"`{name}` must be a positive number, but is {value!r}.")
    return value


def non_negative_number(name: str, value) -> float:
    if not _is_number(value) or value < 0:
        raise ValueError(f"`{name}` must be a number of at least 0, but is {value!r}.")
    return value


def probability(name: str, value) -> float:
    if not _is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"`{name}` must be a number from 0 to 1, but is {value!r}.")
    return value


def boolean(name: str, value) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be True or False, but is {value!r}.")
    return value


def class_count(name: str, value) -> int | None:
    """None is for networks without classes."""
    if value is not None and not _is_integer(value):
        raise ValueError(f"`{name}` must be an integer or None, but is {value!r}.")
    return value


def numbers(name: str, value) -> list[float]:
    """A list of numbers; a single number stands for a list of one."""
    value = list(value) if isinstance(value, (list, tuple)) else [value]
    if not all(map(_is_number, value)):
        raise ValueError(f"`{name}` must be a list of numbers, but is {value!r}.")
    return value


def path(name: str, value) -> str:
    return str(value)


def one_of(*values) -> Kind:
    """The kind of an argument with a few possible values."""

    def kind(name: str, value):
        if value not in values:
            *others, last = map(repr, values)
            possible = f"{', '.join(others)} or {last}" if others else last
            raise ValueError(f"`{name}` must be {possible}, but is {value!r}: other networks are not converted.")
        return value

    return kind


def _is_integer(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def require(options: Mapping, *names: str) -> None:
    """Refuses to guess what no tensor shows."""
    for name in names:
        if name not in options:
            raise ValueError(f"The checkpoint does not show its `{name}`: give it as an option, or name the preset.")


def check_agreement(
    config: Mapping, given: Mapping, read: Mapping, names: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Refuses the first argument that differs from the checkpoint.

    Args:
        config (`Mapping`): the arguments as the user wrote them.
        given (`Mapping`): the same arguments, in the form to compare.
        read (`Mapping`): what the checkpoint shows, by the names of the arguments.
        names (`Mapping`): the original's names of arguments that have another name here.
    """
    for name, value in read.items():
        if name in given and given[name] != value:
            raise ValueError(f"`{names.get(name, name)}` is given as {config[name]}, but the checkpoint has {value}.")


def check_image_size(image_size: int | None, num_levels: int) -> None:
    """Refuses images that a U-Net cannot halve from each level to the next, and double back to the same size."""
    factor = 2 ** (num_levels - 1)
    if image_size is not None and image_size % factor != 0:
        raise ValueError(
            f"`image_size` must be a multiple of {factor}, because the network halves images from each of its "
            f"{num_levels} levels to the next, but is {image_size}."
        )
