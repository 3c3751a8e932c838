"""Deep generative imaging that Diffusers leaves out: pipelines, models, trainers and measures with its own habits.

Importing the package costs nothing: each public name is imported from its room when it is first used (PEP 562).
"""

import importlib
from typing import TYPE_CHECKING


__version__ = "0.1.0"

_PUBLIC_NAMES = {
    "pipelines": ["ClassConditionalPipeline"],
}
_ROOM_OF = {name: room for room, names in _PUBLIC_NAMES.items() for name in names}
_ROOMS = ["converters", "data", "guiders", "hub", "losses", "metrics", "models", "pipelines", "schedulers", "training"]

__all__ = sorted(_ROOM_OF)

if TYPE_CHECKING:
    from diffusers_ext.pipelines import ClassConditionalPipeline as ClassConditionalPipeline


def __getattr__(name: str):
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__, *_ROOMS})
