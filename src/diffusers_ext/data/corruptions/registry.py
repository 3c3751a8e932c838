"""The corruptions of restoration tasks by name: built-in ones, functions of the user, and combinations."""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from diffusers_ext.data.corruptions.blur import deblurring
from diffusers_ext.data.corruptions.camera_noise import camera_noise
from diffusers_ext.data.corruptions.colors import colorization
from diffusers_ext.data.corruptions.corruption import Corruption
from diffusers_ext.data.corruptions.exposure import exposure_clipping
from diffusers_ext.data.corruptions.jpeg import jpeg_restoration
from diffusers_ext.data.corruptions.masking import inpainting, uncropping
from diffusers_ext.data.corruptions.motion_blur import motion_blur
from diffusers_ext.data.corruptions.noise import denoising
from diffusers_ext.data.corruptions.outlines import outlines
from diffusers_ext.data.corruptions.resampling import super_resolution
from diffusers_ext.data.corruptions.second_order import second_order


CORRUPTIONS: dict[str, Callable[..., Corruption]] = {
    "colorization": colorization,
    "inpainting": inpainting,
    "uncropping": uncropping,
    "jpeg_restoration": jpeg_restoration,
    "super_resolution": super_resolution,
    "denoising": denoising,
    "deblurring": deblurring,
    "motion_blur": motion_blur,
    "camera_noise": camera_noise,
    "exposure_clipping": exposure_clipping,
    "second_order": second_order,
}
# What a translation can start from: an image that a task has degraded, or the edges of the image.
TRANSLATION_INPUTS: dict[str, Callable[..., Corruption]] = CORRUPTIONS | {"edges": outlines}


def load_corruptions(
    tasks: Sequence[str],
    options: Mapping[str, Mapping[str, Any]] | None = None,
    registry: Mapping[str, Callable[..., Corruption]] = CORRUPTIONS,
) -> dict[str, Callable[[torch.Tensor, Any], Corruption]]:
    """The corruptions of the named tasks.

    Args:
        tasks: names. "deblurring" is a name in `registry`. "my_module:my_function" is a function of yours, which is
            called as `my_function(images, draw, **options)` and returns a `Corruption`. "deblurring+jpeg_restoration"
            is a combination, which applies one task after the other. The tasks of a combination that hide pixels do so
            at the end, wherever they stand in the name.
        options: keyword arguments that replace the defaults of a task, by the name of the task, for example
            `{"jpeg_restoration": {"quality": [5, 10]}}`. They also apply in combinations.
        registry: the built-in functions by name.

    Returns:
        For each name a function of images, float32 (N, C, H, W), and `draw`, whose methods `normal_like`, `uniform`
        and `integers` return random numbers from one stream per sample, so that the result for an image depends only
        on its own stream. The values of the options are checked when the function is called.

    Raises:
        ValueError: for an unknown task, and an option that no task has.
        ImportError: if a module of yours cannot be imported.
    """
    if not tasks or len(set(tasks)) < len(tasks):
        raise ValueError(f"tasks must be different names, at least one, not {list(tasks)}")
    options = options or {}
    parts = {task: {name: _load(name, options.get(name, {}), registry) for name in task.split("+")} for task in tasks}
    unused = set(options) - {name for task in parts.values() for name in task}
    if unused:
        raise ValueError(f"there are options for {', '.join(sorted(unused))}, but the tasks are {', '.join(tasks)}")
    return {task: functools.partial(_apply, parts[task]) for task in tasks}


def describe_corruptions() -> dict[str, str]:
    """A line about each task, with its options and their defaults."""
    return {name: f"{_summary(function)} {_options(function)}".rstrip() for name, function in CORRUPTIONS.items()}


def _summary(function: Callable) -> str:
    return inspect.getdoc(function).partition("\n")[0]


def _options(function: Callable) -> str:
    options = list(inspect.signature(function).parameters.values())[2:]
    return f"[{', '.join(f'{option.name}={option.default!r}' for option in options)}]" if options else ""


def _load(
    name: str, options: Mapping[str, Any], registry: Mapping[str, Callable[..., Corruption]]
) -> Callable[[torch.Tensor, Any], Corruption]:
    function = _import(name) if ":" in name else registry.get(name)
    if function is None:
        raise ValueError(
            f"there is no task {name!r}: the tasks are {', '.join(registry)}, functions of yours as "
            f"'module:function', and combinations such as 'deblurring+jpeg_restoration'"
        )
    try:
        inspect.signature(function).bind(None, None, **options)
    except TypeError as error:
        raise ValueError(f"the task {name!r} {_options(function)} does not accept {dict(options)}: {error}") from error
    return functools.partial(function, **options)


def _import(path: str) -> Callable[..., Corruption]:
    module_name, _, attribute = path.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), attribute, None)
    except ModuleNotFoundError as error:
        raise ImportError(f"the task {path!r} cannot be imported ({error}): is its folder on PYTHONPATH?") from error
    if not callable(function):
        raise ValueError(f"the task {path!r} must name a function in {module_name}")
    return function


@torch.no_grad()
def _apply(parts: dict[str, Callable[[torch.Tensor, Any], Corruption]], images: torch.Tensor, draw) -> Corruption:
    """Applies the parts of a task, one after the other."""
    degraded, holes, noise = images, None, images
    for name, part in parts.items():
        corruption = part(degraded, draw)
        _check_corruption(name, corruption, images)
        if corruption.mask is None:
            degraded = corruption.conditioning_image
        if corruption.hidden is not None:  # the noise is inserted at the end, so that later parts do not change it
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
