"""Conditions by name: built-in ones, and functions of the user."""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from diffusers_ext.data.conditions.canny import canny
from diffusers_ext.data.conditions.segmentation import segmentation
from diffusers_ext.data.conditions.simplified import blur, grayscale, low_resolution
from diffusers_ext.data.conditions.soft_edges import soft_edges


Condition = Callable[[torch.Tensor], torch.Tensor]

# Conditions that are computed from the images themselves, and from label maps that come with the images.
IMAGE_CONDITIONS: dict[str, Callable[..., torch.Tensor]] = {
    "canny": canny,
    "soft_edges": soft_edges,
    "blur": blur,
    "grayscale": grayscale,
    "low_resolution": low_resolution,
}
LABEL_MAP_CONDITIONS: dict[str, Callable[..., torch.Tensor]] = {"segmentation": segmentation}
CONDITIONS = IMAGE_CONDITIONS | LABEL_MAP_CONDITIONS


def load_condition(name: str, options: Mapping[str, Any] | None = None) -> Condition:
    """The function that computes control images from images.

    Args:
        name: a name in `CONDITIONS`, or "my_module:my_function", a function of yours, which is called as
            `my_function(images, **options)`.
        options: keyword arguments that replace the defaults, for example `{"sigma": 2.0}` for canny.

    Returns:
        A function from images, float32 (N, C, H, W) in [-1, 1], to control images, float32 (N, 3, H, W) in [-1, 1].
        For `LABEL_MAP_CONDITIONS` its input is label maps in the same form. The values of the options are checked when
        it is called.

    Raises:
        ValueError: for an unknown condition, or an option that it does not have.
        ImportError: if a module of yours cannot be imported.
    """
    function = _import(name) if ":" in name else CONDITIONS.get(name)
    if function is None:
        raise ValueError(
            f"there is no condition {name!r}: the conditions are {', '.join(CONDITIONS)}, and functions of yours as "
            f"'module:function'"
        )
    options = dict(options or {})
    try:
        inspect.signature(function).bind(None, **options)
    except TypeError as error:
        raise ValueError(f"the condition {name!r} does not accept {options}: {error}") from error
    return functools.partial(_apply, name, functools.partial(function, **options))


def describe_conditions() -> dict[str, str]:
    """A line about each condition, with its options and their defaults."""
    described = {}
    for name, function in CONDITIONS.items():
        options = list(inspect.signature(function).parameters.values())[1:]
        shown = f" [{', '.join(f'{option.name}={option.default!r}' for option in options)}]" if options else ""
        described[name] = inspect.getdoc(function).partition("\n")[0] + shown
    return described


def _import(path: str) -> Callable[..., torch.Tensor]:
    module_name, _, attribute = path.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), attribute, None)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the condition {path!r} cannot be imported ({error}): is its folder on PYTHONPATH?"
        ) from error
    if not callable(function):
        raise ValueError(f"the condition {path!r} must name a function in {module_name}")
    return function


@torch.no_grad()
def _apply(name: str, function: Condition, images: torch.Tensor) -> torch.Tensor:
    with torch.autocast(images.device.type, enabled=False):
        control, expected = function(images), (len(images), 3, *images.shape[2:])
    # Values are only checked on the CPU: on a GPU, reading them would wait for all that the GPU has to do.
    if control.shape != expected or control.device.type == "cpu" and not control.abs().max() <= 1:
        raise ValueError(
            f"the condition {name!r} must return images {expected} in [-1, 1], not {tuple(control.shape)} in "
            f"[{control.min():.3g}, {control.max():.3g}]"
        )
    return control
