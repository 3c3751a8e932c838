"""Tiny classes that live in the package while tests run: files in the search path of its rooms, names at its top.

So `diffusers_ext.models.modeling_toy` is imported by Python itself, from a file, as a class of the package would be.
"""

import importlib
import sys
from pathlib import Path

import diffusers_ext


MODULES = {
    "models": ("modeling_toy", "ToyDenoiser"),
    "schedulers": ("scheduling_toy", "ToyScheduler"),
    "guiders": ("guiding_toy", "ToyGuidance"),
    "pipelines": ("pipeline_toy", "ToyPipeline"),
}


FOLDERS = {room: str(Path(__file__).parent / room) for room in MODULES}


def move_in() -> None:
    """Makes the toy classes a part of the installed package, in this process."""
    from diffusers_ext.hub import PublishableMixin

    for room, (module, name) in MODULES.items():
        importlib.import_module(f"diffusers_ext.{room}").__path__.append(FOLDERS[room])
        setattr(diffusers_ext, name, getattr(importlib.import_module(f"diffusers_ext.{room}.{module}"), name))

    class ToyPipeline(PublishableMixin, diffusers_ext.ToyPipeline):
        pass

    diffusers_ext.ToyPipeline = ToyPipeline


def move_out() -> None:
    """Leaves the package as it was before `move_in`."""
    for room, (module, name) in MODULES.items():
        importlib.import_module(f"diffusers_ext.{room}").__path__.remove(FOLDERS[room])
        del sys.modules[f"diffusers_ext.{room}.{module}"]
        delattr(diffusers_ext, name)
