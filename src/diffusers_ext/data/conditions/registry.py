"""Conditions by name: those of this package, and functions of a user."""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from diffusers_ext.data.conditions.canny import canny
from diffusers_ext.data.conditions.edges import soft_edges
from diffusers_ext.data.conditions.segmentation import segmentation
from diffusers_ext.data.conditions.simpler import blur, grayscale, low_resolution


Condition = Callable[[torch.Tensor], torch.Tensor]

# What is made of images themselves, and of label maps that come with them.
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
    """What makes a control image of an image.

    Args:
        name: one of `CONDITIONS`, or "my_module:my_function", a function of yours, called as
            `my_function(images, **options)`.
        options: keywords that are not to have their defaults, for example `{"sigma": 2.0}` for canny.

    Returns:
        A function of images, float32 (N, C, H, W) in [-1, 1] (for `LABEL_MAP_CONDITIONS`, of label maps in that form),
        that returns float32 (N, 3, H, W) in [-1, 1]. The values of the options are checked when it is called.

    Raises:
        ValueError: for what is no condition, or an option that it has not.
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
        raise ValueError(f"the condition {name!r} cannot be given {options}: {error}") from error
    return functools.partial(_apply, name, functools.partial(function, **options))


def describe_conditions() -> dict[str, str]:
    """What each condition is, in a line, with its options and their defaults."""
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
        raise ValueError(f"the condition {path!r} should name a function in {module_name}")
    return function


@torch.no_grad()
def _apply(name: str, function: Condition, images: torch.Tensor) -> torch.Tensor:
    with torch.autocast(images.device.type, enabled=False):
        control, expected = function(images), (len(images), 3, *images.shape[2:])
    if control.shape != expected or not control.abs().max() <= 1:
        raise ValueError(
            f"the condition {name!r} must give images {expected} in [-1, 1], not {tuple(control.shape)} in "
            f"[{control.min():.3g}, {control.max():.3g}]"
        )
    return control
