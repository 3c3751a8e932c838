"""Lets diffusers load this package's components by name, inside anyone's pipeline.

A saved pipeline names the library and the class of each component, and diffusers takes components only from libraries
that it knows. It knows them by `LOADABLE_CLASSES`, where a third party has to enter itself: otherwise the module path
is recorded in place of the library, a folder loads only where that very module was imported before, and a repository
of the Hub does not load at all. Once entered, `["diffusers_ext", "OurScheduler"]` is recorded, and works in both.

This file stands below every room that has component classes, because it must have run before the first component
meets a pipeline: the `__init__.py` of each such room calls `register`. It is not run by `import diffusers_ext`, which
would then import all of diffusers.
"""

from diffusers import ModelMixin, SchedulerMixin
from diffusers.guiders import BaseGuidance
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES

import diffusers_ext


def register() -> None:
    """Enters `diffusers_ext` among the libraries that diffusers loads components from."""
    LOADABLE_CLASSES.setdefault("diffusers_ext", {})
    # Diffusers decides how to load a class by its base class, which it looks up in the library of the component.
    for base_class in (ModelMixin, SchedulerMixin, BaseGuidance):
        setattr(diffusers_ext, base_class.__name__, base_class)
