"""A system that was added by the steps of CONTRIBUTING.md, in this folder instead of the package's own.

Probabilistic PCA (Tipping and Bishop 1999): a model, a pipeline, a recipe, a converter, and an example. No file of the
package was changed for it. [`moved_in`] puts the files into the package's search path, and adds what the lines of
registration would add: the class of the model, and the publishable class of the pipeline.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import diffusers_ext


FOLDER = Path(__file__).parent
ROOMS = ("models", "pipelines", "training", "converters")


@contextmanager
def moved_in() -> Iterator[None]:
    """Inside of this context, the toy system is a part of the package in this process."""
    rooms = [importlib.import_module(f"diffusers_ext.{room}") for room in ROOMS]
    known = set(sys.modules)
    for room in rooms:
        room.__path__.append(str(FOLDER / room.__name__.split(".")[1]))
    # models/__init__.py: from diffusers_ext.models.modeling_pca_generator import PCAGenerator as PCAGenerator
    diffusers_ext.PCAGenerator = importlib.import_module("diffusers_ext.models.modeling_pca_generator").PCAGenerator
    # pipelines/__init__.py: class PCAPipeline(PublishableMixin, pipeline_pca.PCAPipeline): ...
    plain = importlib.import_module("diffusers_ext.pipelines.pipeline_pca").PCAPipeline
    diffusers_ext.PCAPipeline = type("PCAPipeline", (diffusers_ext.PublishableMixin, plain), {})
    diffusers_ext.pipelines.PCAPipeline = diffusers_ext.PCAPipeline
    try:
        yield
    finally:
        del diffusers_ext.PCAGenerator, diffusers_ext.PCAPipeline, diffusers_ext.pipelines.PCAPipeline
        for room in rooms:
            room.__path__.remove(str(FOLDER / room.__name__.split(".")[1]))
        for name in set(sys.modules) - known:
            if str(FOLDER) in str(getattr(sys.modules[name], "__file__", None)):
                del sys.modules[name]
