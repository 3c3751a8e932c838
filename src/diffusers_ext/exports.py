"""The public names of packages that import their modules only when a name is first used.

Such a package has an `__init__.pyi` for type checkers, which says which module each name comes from. The functions
here read the same stub at run time, so that every name is written only once.
"""

import ast
import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path


@functools.cache
def exports(package: str) -> dict[str, str]:
    """The public names of a package, and the module of each, without importing anything.

    They are read from `__init__.pyi`, or from `__init__.py` if there is no stub, by the rules of type checkers: public
    are `from module import name as name`, the public names of `from module import *`, and definitions.
    """
    file = Path(importlib.util.find_spec(package).origin)
    stub = file.with_suffix(".pyi")
    found = {}
    for node in ast.parse((stub if stub.is_file() else file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            module = f"{package}.{node.module}" if node.level else node.module
            if node.names[0].name == "*":
                found |= dict.fromkeys(exports(module), module)
            found |= {alias.name: module for alias in node.names if alias.asname == alias.name}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            found[node.name] = package
    return found


def lazy_attributes(package: str) -> tuple[Callable, Callable]:
    """`__getattr__` and `__dir__` (PEP 562) of a package with a stub: its names, and the modules they come from."""

    def get_attribute(name: str):
        names = exports(package)
        if name == "__all__":
            return sorted(names)
        if name in names:
            value = getattr(importlib.import_module(names[name]), name)
        elif f"{package}.{name}" in names.values():
            value = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    def list_attributes() -> list[str]:
        names = exports(package)
        modules = {module.removeprefix(f"{package}.").split(".")[0] for module in names.values()}
        return sorted({*vars(sys.modules[package]), *names, *modules})

    return get_attribute, list_attributes
