"""The tasks of Palette: what each task needs, and which task the arguments of a call mean."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from .checks import check_positive_int, is_number
from .images import is_gray


TASKS = (
    "colorization",
    "inpainting",
    "uncropping",
    "jpeg_restoration",
    "super_resolution",
    "denoising",
    "deblurring",
    "translation",
)
# In these tasks some pixels are hidden, and the others stay as they are.
MASKED_TASKS = ("inpainting", "uncropping")


@dataclass(frozen=True)
class Task:
    """A task, or several at once, such as `"deblurring+denoising"`. Names that are not in `TASKS` are the user's."""

    name: str
    parts: tuple[str, ...]

    @property
    def inpaints(self) -> bool:
        return "inpainting" in self.parts

    @property
    def uncrops(self) -> bool:
        return "uncropping" in self.parts

    @property
    def enlarges(self) -> bool:
        return "super_resolution" in self.parts

    @property
    def removes_color(self) -> bool:
        """Whether the network is shown gray images."""
        return "colorization" in self.parts

    @property
    def takes_mask(self) -> bool:
        return any(part in MASKED_TASKS or part not in TASKS for part in self.parts)

    @property
    def keeps_pixels(self) -> bool:
        """Whether the pixels outside of a mask are clean. In a combination of tasks they may be degraded too."""
        return all(part in MASKED_TASKS or part not in TASKS for part in self.parts)

    @property
    def needs_arguments(self) -> bool:
        """Whether a call for the task needs a mask, padding or a size."""
        return self.inpaints or self.uncrops or self.enlarges


@cache
def parse_task(name: str) -> Task:
    return Task(name, tuple(name.split("+")))


def choose_task(
    name: str | None,
    trained_tasks: Collection[str] | None,
    images: list[torch.Tensor],
    has_mask: bool,
    has_padding: bool,
    has_size: bool,
) -> Task:
    """
    The task of a call: the one that it names, or else the one that its other arguments imply.

    Args:
        name (`str`, *optional*): the task that the call names.
        trained_tasks (`Collection[str]`, *optional*): what the network was trained for; by default unknown.
        images (`list[torch.Tensor]`): the images `(C, H, W)` of the call.
        has_mask, has_padding, has_size (`bool`): whether the call has a mask, padding, or a size or scale factor.

    Raises:
        ValueError: if there is no such task, the network was not trained for it, or the arguments imply no task.
    """
    if name is None:
        name = infer_task(trained_tasks, images, has_mask, has_padding, has_size)
    if not isinstance(name, str):
        raise ValueError(f"`task` must be one name, such as 'inpainting', but is {name!r}.")
    task = parse_task(name)
    if trained_tasks is None and not all(part in TASKS for part in task.parts):
        raise ValueError(f"There is no task {name!r}: `task` must be one of {', '.join(TASKS)}.")
    if trained_tasks is not None and name not in trained_tasks:
        raise ValueError(f"The model was not trained for the task {name!r}, but for {', '.join(trained_tasks)}.")
    return task


def infer_task(
    trained_tasks: Collection[str] | None,
    images: list[torch.Tensor],
    has_mask: bool,
    has_padding: bool,
    has_size: bool,
) -> str:
    """The name of the task that the arguments of a call imply, as in [`choose_task`]."""
    if has_mask:
        return only_task(trained_tasks, "inpainting", lambda task: task.takes_mask)
    if has_padding:
        return only_task(trained_tasks, "uncropping", lambda task: task.uncrops)
    if has_size:
        return only_task(trained_tasks, "super_resolution", lambda task: task.enlarges)
    if trained_tasks is None:
        return "translation"
    if len(trained_tasks) == 1:
        return next(iter(trained_tasks))
    candidates = [name for name in trained_tasks if not parse_task(name).needs_arguments]
    if "colorization" in candidates and len(candidates) > 1:
        if all(map(is_gray, images)):
            return "colorization"
        candidates.remove("colorization")
    if len(candidates) == 1:
        return candidates[0]
    raise ValueError(f"The image does not tell the task: pass `task`, one of {', '.join(trained_tasks)}.")


def only_task(trained_tasks: Collection[str] | None, default: str, fits: Callable[[Task], bool]) -> str:
    """The only task that fits, if there is one; otherwise the default."""
    fitting = [name for name in trained_tasks or [default] if fits(parse_task(name))]
    return fitting[0] if len(fitting) == 1 else default


def check_task_arguments(
    task: Task,
    mask_image: Any,
    padding: Any,
    scale_factor: float | None,
    height: int | None,
    width: int | None,
    default_scale_factor: float | None,
):
    """Refuses a call without the arguments that its task needs, or with arguments that do not fit it."""
    sizes = {"scale_factor": scale_factor, "height": height, "width": width}
    sizes = [name for name, value in sizes.items() if value is not None]
    if mask_image is not None and not task.takes_mask:
        raise ValueError(f"`mask_image` is for inpainting, and means nothing to the task {task.name!r}.")
    if padding is not None and not task.uncrops:
        raise ValueError(f"`padding` is for uncropping, and means nothing to the task {task.name!r}.")
    if sizes and not task.enlarges:
        raise ValueError(f"`{sizes[0]}` is for super_resolution, and means nothing to the task {task.name!r}.")

    if task.inpaints and mask_image is None:
        raise ValueError("Inpainting needs `mask_image`, which is white where pixels have to be made.")
    if task.uncrops and (mask_image is None) == (padding is None):
        raise ValueError("Uncropping needs `padding` of (left, top, right, bottom) pixels, or else `mask_image`.")
    if task.enlarges and sizes not in (["scale_factor"], ["height", "width"]):
        if sizes or default_scale_factor is None:
            raise ValueError("Super-resolution needs either `scale_factor` or both `height` and `width`.")


def check_task_names(tasks: Any):
    """Refuses everything but a list of names, for the tasks that a network was trained for."""
    if isinstance(tasks, str) or not tasks or not all(isinstance(task, str) for task in tasks):
        raise ValueError(f"`tasks` must be a list of names, such as ['inpainting'], but is {tasks!r}.")


def check_scale_factor(name: str, value: Any):
    """Refuses everything but numbers from 1 up."""
    if not is_number(value) or value < 1:
        raise ValueError(f"`{name}` must be a number from 1 up, but is {value!r}.")


def get_enlarged_size(
    size: tuple[int, int], scale_factor: float | None, height: int | None, width: int | None
) -> tuple[int, int]:
    """
    The height and width of the images that super-resolution makes.

    Args:
        size (`tuple[int, int]`): height and width of the given images.
        scale_factor (`float`, *optional*): how much larger the result is, if `height` and `width` are not given.
        height, width (`int`, *optional*): of the result.

    Raises:
        ValueError: if the result would be smaller.
    """
    if height is None:
        check_scale_factor("scale_factor", scale_factor)
        height, width = (round(side * scale_factor) for side in size)
    for name, new, old in (("height", height, size[0]), ("width", width, size[1])):
        check_positive_int(name, new)
        if new < old:
            raise ValueError(f"`{name}` must be {old}, the size of the image, or more, but is {new}.")
    return height, width
