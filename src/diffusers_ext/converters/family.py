"""The description of one kind of checkpoint, from which the command and [`convert_checkpoint`] are made."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from diffusers_ext.converters.checkpoint_files import read_state_dict
from diffusers_ext.converters.original_arguments import Kind


class Saveable(Protocol):
    """A model, scheduler or pipeline."""

    def save_pretrained(self, save_directory): ...


class Conversion(NamedTuple):
    """A converted checkpoint."""

    components: Mapping[str, Saveable]  # by the subfolder to write each to; "" is the folder itself
    assumed: Iterable[str] = ()  # defaults that were used because neither the tensors nor the options showed a value


class RunFiles(NamedTuple):
    """Names of files in the folder of a training run, which can be given instead of the checkpoint itself."""

    weights: str
    settings: str  # JSON beside the weights, with values for some of the family's options


@dataclass(frozen=True)
class Family:
    """One kind of checkpoint.

    Args:
        name (`str`):
            The value of `--family`.
        description (`str`):
            For the help text: which files these are, and what they become.
        example (`str`):
            The arguments of an example command, without `--family`.
        convert (`Callable`):
            `convert(state_dict, options)` makes a [`Conversion`]. The options are checked already.
        read (`Callable`):
            `read(file)` makes the state dict, or whatever `convert` takes in its place.
        options (`Mapping`):
            The kind of each value that `--option` may set, such as `original_arguments.positive_integer`. A family
            with an option `id2label` also takes names of classes by `--id2label`.
        functions (`tuple`):
            Public functions that convert a state dict to a network. `diffusers_ext.converters` exports them.
        presets (`Mapping`):
            Options of published checkpoints, by the name of the checkpoint or of its configuration.
        run_files (`RunFiles`, *optional*):
            The files that the original's training writes to a folder, if that folder can be given.
    """

    name: str
    description: str
    example: str
    convert: Callable[[Any, dict], Conversion]  # which may change the dict
    options: Mapping[str, Kind]
    functions: tuple[Callable, ...]
    presets: Mapping[str, Mapping] = field(default_factory=dict)
    run_files: RunFiles | None = None
    read: Callable[[str | os.PathLike], Any] = read_state_dict


def assumptions(options: Mapping, defaults: Mapping) -> list[str]:
    """`name=value` for each default that no option replaces."""
    return [f"{name}={value}" for name, value in defaults.items() if name not in options]
