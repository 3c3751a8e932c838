"""The families of all origins, found by listing the subpackages of `diffusers_ext.converters`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import diffusers_ext.converters as converters
from diffusers_ext.on_demand import definition


if TYPE_CHECKING:
    from diffusers_ext.converters.family import Family


def families() -> dict[str, Family]:
    """The families by name.

    Raises:
        ValueError: if two families have the same name.
    """
    return _by_name(lambda module: importlib.import_module(module).FAMILIES)


def described_families() -> dict[str, Family]:
    """The families by name, read without importing PyTorch and the networks: for texts such as the help.

    Raises:
        ValueError: if two families have the same name.
    """
    return _by_name(lambda module: definition(module, "FAMILIES"))


def _by_name(read: Callable[[str], Iterable[Family]]) -> dict[str, Family]:
    found = {}
    for module in sorted(pkgutil.iter_modules(converters.__path__), key=lambda module: module.name):
        if not module.ispkg:
            continue
        for family in read(f"{converters.__name__}.{module.name}"):
            if family.name in found:
                raise ValueError(f"Two families are called {family.name!r}, one of them in {module.name}.")
            found[family.name] = family
    return found
