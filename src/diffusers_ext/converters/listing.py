"""The families of all origins, found by listing the subpackages of `diffusers_ext.converters`."""

import importlib
import pkgutil

import diffusers_ext.converters as converters
from diffusers_ext.converters.family import Family


def families() -> dict[str, Family]:
    """The families by name.

    Raises:
        ValueError: if two families have the same name.
    """
    found = {}
    for module in sorted(pkgutil.iter_modules(converters.__path__), key=lambda module: module.name):
        if not module.ispkg:
            continue
        for family in importlib.import_module(f"{converters.__name__}.{module.name}").FAMILIES:
            if family.name in found:
                raise ValueError(f"Two families are called {family.name!r}, one of them in {module.name}.")
            found[family.name] = family
    return found
