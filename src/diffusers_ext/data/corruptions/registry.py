"""Tasks by name: those of this package, functions of a user, and combinations."""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from diffusers_ext.data.corruptions.blur import deblurring
from diffusers_ext.data.corruptions.colors import colorization
from diffusers_ext.data.corruptions.corruption import Corruption
from diffusers_ext.data.corruptions.jpeg import jpeg_restoration
from diffusers_ext.data.corruptions.masking import inpainting, uncropping
from diffusers_ext.data.corruptions.noise import denoising
from diffusers_ext.data.corruptions.resampling import super_resolution


CORRUPTIONS: dict[str, Callable[..., Corruption]] = {
    "colorization": colorization,
    "inpainting": inpainting,
    "uncropping": uncropping,
    "jpeg_restoration": jpeg_restoration,
    "super_resolution": super_resolution,
    "denoising": denoising,
    "deblurring": deblurring,
}


def load_corruptions(
    tasks: Sequence[str], options: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Callable[[torch.Tensor, Any], Corruption]]:
    """What each of the named tasks does to images.

    Args:
        tasks: names. "deblurring" is one of `CORRUPTIONS`; "my_module:my_function" is a function of yours, called as
            `my_function(images, draw, **options)` and returning a `Corruption`; "deblurring+jpeg_restoration" does
            one after the other. Of a combination, what hides pixels does so last, wherever it stands.
        options: the keywords of tasks that are not to have their defaults, by the name of the task, for example
            `{"jpeg_restoration": {"quality": [5, 10]}}`; they hold in combinations, too.

    Returns:
        For each name a function of images, float32 (N, C, H, W) in [-1, 1], and `draw`, whose methods `normal_like`,
        `uniform` and `integers` give random numbers from a stream per sample: what becomes of an image depends on its
        own stream only. The values of the options are checked when it is called.

    Raises:
        ValueError: for what is no task, or an option that no task has.
        ImportError: if a module of yours cannot be imported.
    """
    if not tasks or len(set(tasks)) < len(tasks):
        raise ValueError(f"tasks must be different names, at least one, not {list(tasks)}")
    options = options or {}
    parts = {task: {name: _load(name, options.get(name, {})) for name in task.split("+")} for task in tasks}
    unused = set(options) - {name for task in parts.values() for name in task}
    if unused:
        raise ValueError(f"there are options for {', '.join(sorted(unused))}, but the tasks are {', '.join(tasks)}")
    return {task: functools.partial(_apply, parts[task]) for task in tasks}


def describe_corruptions() -> dict[str, str]:
    """What each task does, in a line, with its options and their defaults."""
    return {name: f"{_summary(function)} {_options(function)}".rstrip() for name, function in CORRUPTIONS.items()}


def _summary(function: Callable) -> str:
    return inspect.getdoc(function).partition("\n")[0]


def _options(function: Callable) -> str:
    options = list(inspect.signature(function).parameters.values())[2:]
    return f"[{', '.join(f'{option.name}={option.default!r}' for option in options)}]" if options else ""


def _load(name: str, options: Mapping[str, Any]) -> Callable[[torch.Tensor, Any], Corruption]:
    function = _import(name) if ":" in name else CORRUPTIONS.get(name)
    if function is None:
        raise ValueError(
            f"there is no task {name!r}: the tasks are {', '.join(CORRUPTIONS)}, functions of yours as "
            f"'module:function', and combinations such as 'deblurring+jpeg_restoration'"
        )
    try:
        inspect.signature(function).bind(None, None, **options)
    except TypeError as error:
        raise ValueError(f"the task {name!r} {_options(function)} cannot be given {dict(options)}: {error}") from error
    return functools.partial(function, **options)


def _import(path: str) -> Callable[..., Corruption]:
    module_name, _, attribute = path.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), attribute, None)
    except ModuleNotFoundError as error:
        raise ImportError(f"the task {path!r} cannot be imported ({error}): is its folder on PYTHONPATH?") from error
    if not callable(function):
        raise ValueError(f"the task {path!r} should name a function in {module_name}")
    return function


@torch.no_grad()
def _apply(parts: dict[str, Callable[[torch.Tensor, Any], Corruption]], images: torch.Tensor, draw) -> Corruption:
    """The parts of a task, one after the other."""
    degraded, holes, noise = images, None, images
    for name, part in parts.items():
        corruption = part(degraded, draw)
        _check_corruption(name, corruption, images)
        if corruption.mask is None:
            degraded = corruption.conditioning_image
        if corruption.hidden is not None:  # kept for the end, as later parts are no noise's business
            noise = torch.where(corruption.hidden > 0, corruption.conditioning_image, noise)
            holes = corruption.hidden if holes is None else torch.maximum(holes, corruption.hidden)
    if holes is None:
        return Corruption(degraded)
    return Corruption(torch.where(holes > 0, noise, degraded), holes if degraded is images else None, holes)


def _check_corruption(name: str, corruption: Corruption, images: torch.Tensor) -> None:
    if not isinstance(corruption, Corruption):
        raise ValueError(f"the task {name!r} must return a Corruption, not {type(corruption).__name__}")
    shown, mask = corruption.conditioning_image, corruption.hidden
    if shown.shape != images.shape or shown.dtype != images.dtype:
        raise ValueError(
            f"the conditioning image of the task {name!r} must be {tuple(images.shape)} {images.dtype} like the "
            f"images, not {tuple(shown.shape)} {shown.dtype}"
        )
    if mask is not None and (mask.shape != images[:, :1].shape or mask.dtype != images.dtype):
        raise ValueError(
            f"the mask of the task {name!r} must be {tuple(images[:, :1].shape)} {images.dtype}, not "
            f"{tuple(mask.shape)} {mask.dtype}"
        )
