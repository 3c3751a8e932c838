"""The panels, found by listing: each file defines one as `PANEL`."""

import importlib
import pkgutil
from functools import cache

from diffusers import DiffusionPipeline

from diffusers_ext.demo.panel import Limits, Panel


@cache
def list_panels() -> dict[str, type[Panel]]:
    """The panels by the names of the pipelines that they are for.

    Raises:
        ValueError: if two panels name the same pipeline.
    """
    found = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        panel = importlib.import_module(f"{__name__}.{module.name}").PANEL
        for name in panel.pipelines:
            if name in found:
                raise ValueError(f"Two panels are for {name}: {found[name].__name__} and {panel.__name__}.")
            found[name] = panel
    return found


def panel_for(pipeline: DiffusionPipeline, limits: Limits | None = None) -> Panel:
    """The panel that names the class of a pipeline or, if there is none, the nearest of its base classes.

    Classes are compared by name, so that the class of a published pipeline file is known, too.
    """
    panels = list_panels()
    name = next(cls.__name__ for cls in type(pipeline).__mro__ if cls.__name__ in panels)
    return panels[name](pipeline, limits or Limits())
