"""Registers this package in diffusers, so that diffusers can load its components by name in any pipeline.

A saved pipeline records the library and the class of each component, and diffusers only loads components from
libraries in `LOADABLE_CLASSES`. For other libraries it records the module path instead of the library: then a saved
folder only loads if that module has already been imported, and a repository on the Hub does not load at all. Once
registered, `["diffusers_ext", "OurScheduler"]` is recorded, which loads from both.

Registration must happen before the first component is used in a pipeline. So the `__init__.py` of each room with
component classes calls `register`. `import diffusers_ext` does not call it, because it would import all of diffusers.
"""

from diffusers import ModelMixin, SchedulerMixin
from diffusers.guiders import BaseGuidance
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES

import diffusers_ext


def register() -> None:
    """Adds `diffusers_ext` to the libraries that diffusers loads components from."""
    LOADABLE_CLASSES.setdefault("diffusers_ext", {})
    # Diffusers chooses the loading method of a class by its base class, which it looks up in the component's library.
    for base_class in (ModelMixin, SchedulerMixin, BaseGuidance):
        setattr(diffusers_ext, base_class.__name__, base_class)
