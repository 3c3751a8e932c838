"""Checkpoints of other repositories, converted to networks and pipelines of this package or of diffusers.

The command is `python -m diffusers_ext.converters`; it and [`convert_checkpoint`] write folders for `from_pretrained`.
Functions such as `convert_palette` convert a state dict in memory.

Each subpackage covers one origin, a repository or several by the same authors, and defines `FAMILIES`, a tuple of
`Family` (family.py). Nothing else lists them: to add a family, add a subpackage. One in another folder is found as
well, once that folder is in `diffusers_ext.converters.__path__`. The modules beside the subpackages are what several
origins share.
"""

from collections.abc import Callable

from diffusers_ext.converters.listing import families


def __getattr__(name: str) -> Callable:
    """`convert_checkpoint` and the public functions of the families, imported when one is first used (PEP 562)."""
    if name == "__all__":
        return sorted(["convert_checkpoint", *_functions()])
    if name == "convert_checkpoint":
        from diffusers_ext.converters.checkpoint_to_folder import convert_checkpoint

        return convert_checkpoint
    # Only such names, because the import system asks for others while the subpackages are being imported.
    if name.startswith("convert_") and name in _functions():
        return _functions()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_functions()})


def _functions() -> dict[str, Callable]:
    return {function.__name__: function for family in families().values() for function in family.functions}
