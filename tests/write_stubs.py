"""Writes `__init__.pyi` of the converters, which are found by listing: `python tests/write_stubs.py`."""

from pathlib import Path

import diffusers_ext.converters


FILE = Path(diffusers_ext.converters.__file__).with_suffix(".pyi")
HEADER = "# Written by tests/write_stubs.py: the functions of all families, for type checkers and `diffusers_ext`."


def converters_stub() -> dict[str, str]:
    """The public functions of all families, and the module of each."""
    functions = [getattr(diffusers_ext.converters, name) for name in diffusers_ext.converters.__all__]
    return {function.__name__: function.__module__ for function in functions}


if __name__ == "__main__":
    relative = {name: module.removeprefix("diffusers_ext.converters") for name, module in converters_stub().items()}
    lines = sorted(f"from {module} import {name} as {name}\n" for name, module in relative.items())
    FILE.write_text(f"{HEADER}\n\n{''.join(lines)}", encoding="utf-8")
