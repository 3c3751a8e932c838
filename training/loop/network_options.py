"""Networks whose arguments a user gives as an option, such as --unet."""

import inspect
from collections.abc import Callable

import torch


def build_network(
    network_class: type[torch.nn.Module],
    option: str,
    given: dict,
    *,
    usual: dict | None = None,
    decided: dict | None = None,
    trial: Callable[[torch.nn.Module], object] | None = None,
) -> torch.nn.Module:
    """A new network, or one sentence about what is wrong with its arguments.

    Args:
        network_class (`type`): its class.
        option (`str`): the option that gives the arguments, as in "--unet".
        given (`dict`): the arguments that the user gives.
        usual (`dict`, *optional*): arguments that they replace.
        decided (`dict`, *optional*): arguments that other options decide.
        trial (`Callable`, *optional*): calls the network with blank images. Arguments that a user gives are tried on
            the meta device, which has shapes and no values, so that this takes neither time nor memory.

    Raises:
        ValueError: naming the option.
    """
    usual, decided, name = usual or {}, decided or {}, network_class.__name__
    accepted = [key for key in inspect.signature(network_class.__init__).parameters if key != "self"]
    unknown = [key for key in given if key not in accepted]
    if unknown:
        choices = ", ".join(key for key in accepted if key not in decided)
        raise ValueError(f"{option}: {name} has no argument {unknown[0]!r}, only {choices}.")
    for key, value in decided.items():
        if key in given and _plain(given[key]) != _plain(value):
            raise ValueError(
                f"{option}: {key} is {value}, as the images and other options decide, and can't be {given[key]}."
            )
    arguments = {**usual, **given, **decided}
    try:
        if given and trial is not None:
            with torch.device("meta"), torch.random.fork_rng(devices=[]), torch.no_grad():
                # moved, because some layers of transformers make their parameters on the CPU in any case
                trial(network_class(**arguments).eval().to("meta"))
        return network_class(**arguments)
    except Exception as error:  # networks fail in many ways for values that they don't expect
        if str(error).startswith("--"):  # this names another option, which does not fit the network
            raise
        reason = " ".join(str(error).split()) or "no reason is given"
        values = ", ".join(f"{key}={value!r}" for key, value in given.items()) or "its usual arguments"
        raise ValueError(
            f"{option}: {name} can't be built and used with {values} ({type(error).__name__}: {reason})."
        ) from error


def _plain(value):
    """A value as YAML or JSON would give it."""
    return [_plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value
