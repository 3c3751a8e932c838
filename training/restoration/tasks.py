"""The restoration tasks of a run: their options, and what they do to a batch of clean images."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from diffusers_ext.data.corruptions import Corruption, describe_corruptions, load_corruptions
from diffusers_ext.data.untrained_fills import visible
from diffusers_ext.metrics import METRICS
from diffusers_ext.metrics.restoration import RESTORATION_METRICS
from diffusers_ext.pipelines import PalettePipeline
from diffusers_ext.training.loop.configuration import DataConfig, EvaluationConfig, JSONObject, option
from diffusers_ext.training.loop.draws import Draw


TRANSLATION = "translation"  # the only task that is no corruption: its inputs come with the images


class Tasks:
    """Applies tasks to the batches of a data set.

    Args:
        names (`list[str]`): the tasks; see [`load_corruptions`], and `translation`.
        options (`dict[str, dict]`): the options of each task.
        size, channels: of the images, for a trial run of each task.

    Raises:
        ValueError, ImportError: if a task does not exist, or can't handle such images or options.
    """

    def __init__(self, names: Sequence[str], options: dict[str, dict], size: tuple[int, int], channels: int):
        self.names = list(names)
        corruptions = [name for name in self.names if name != TRANSLATION]
        if len(corruptions) + 1 < len(self.names):
            raise ValueError(f"--tasks must be different ones, not {' '.join(self.names)}.")
        self._corruptions = load_corruptions(corruptions, options) if corruptions else {}
        blank = torch.zeros(1, channels, *size)
        for name in corruptions:  # options are checked by use
            shown = visible(self.corrupt(name, {"pixel_values": blank}, Draw(0, blank.device).begin(0, [0])))
            if not shown.abs().max() <= 1:
                raise ValueError(f"The task {name} must give images in [-1, 1], wherever they are not `hidden`.")

    def corrupt(self, task: str, batch: dict[str, torch.Tensor], draw: Draw) -> Corruption:
        """The network's conditioning for a batch in [-1, 1], for one task."""
        if task == TRANSLATION:
            return Corruption(batch["conditioning_pixel_values"])
        return self._corruptions[task](batch["pixel_values"], draw)

    def mix(self, batch: dict[str, torch.Tensor], draw: Draw) -> Corruption:
        """The network's conditioning for a batch in [-1, 1], with a task per sample, drawn from the sample's stream.

        Returns:
            `Corruption`: its `mask` is 1 everywhere for tasks that have no mask, and its `hidden` is 0 everywhere for
            tasks that hide nothing.
        """
        images, chosen = batch["pixel_values"], draw.host.integers(len(self.names))
        shown, mask = torch.empty_like(images), torch.ones_like(images[:, :1])
        hidden = torch.zeros_like(mask)
        for index, task in enumerate(self.names):
            rows = (chosen == index).nonzero().flatten()
            if len(rows) == 0:
                continue
            part = {name: values[rows] for name, values in batch.items()}
            corruption = self.corrupt(task, part, draw.select(rows.tolist()))
            shown[rows] = corruption.conditioning_image
            if corruption.mask is not None:
                mask[rows] = corruption.mask
            if corruption.hidden is not None:
                hidden[rows] = corruption.hidden
        return Corruption(shown, mask, hidden)


def _tasks_help() -> str:
    lines = [f"{name}: {line}" for name, line in describe_corruptions().items()]
    text = (
        "The restoration tasks, one or several; each sample gets one of them at random. They can be joined, as in "
        "deblurring+jpeg_restoration, and be functions of yours, as module:function. " + " ".join(lines)
    )
    text += f" {TRANSLATION}: paired images, see --conditioning_image_column and --conditioning_image_dir."
    return text


# Arguments of a pipeline's call that a task, other options or the evaluation decide.
_DECIDED_ELSEWHERE = {
    *("self", "image", "task", "mask_image", "padding", "scale_factor", "height", "width", "class_labels"),
    *("num_images_per_input", "num_inference_steps", "timesteps", "sigmas", "guidance_scale", "generator", "latents"),
    *("output_type", "return_dict", "callback_on_step_end", "callback_on_step_end_tensor_inputs"),
}


@dataclass
class TaskConfig(DataConfig, EvaluationConfig):
    """Which tasks are trained or measured."""

    takes_conditioning_images = True

    tasks: list[str] | None = option(help=_tasks_help(), essential=True)
    task_options: JSONObject = option(
        JSONObject(), help="Options of the tasks, by task, as JSON or a YAML mapping: '{\"super_resolution\": {...}}'."
    )

    def __post_init__(self):
        super().__post_init__()
        is_paired = TRANSLATION in (self.tasks or ())
        self.require(
            is_paired == self.has_conditioning_images() or not self.tasks,
            f"--tasks {TRANSLATION} and --conditioning_image_dir or --conditioning_image_column, which names its "
            "inputs, need each other",
        )
        self.require(not self.task_options or self.tasks, "--task_options is for --tasks, which is not set")
        self.require(
            not self.task_options or set(self.tasks) != {TRANSLATION}, f"--tasks {TRANSLATION} has no --task_options"
        )
        self._check_mappings("task_options")
        metrics = self.metrics or ()
        needy = [name for name in metrics if name in (*METRICS, "perceptual_distance", "deep_feature_distance")]
        self.require(
            not (needy and self.tasks) or self.feature_extractor,
            f"--metrics {' '.join(needy)} needs --feature_extractor",
        )

    def _check_mappings(self, name: str) -> None:
        for task, options in getattr(self, name).items():
            self.require(isinstance(options, dict), f"--{name} of {task} must be a mapping, not {options!r}")


@dataclass
class RestorationConfig(TaskConfig):
    """Which tasks a [`PalettePipeline`] is trained for or measured by, and how it is called."""

    call_options: JSONObject = option(
        JSONObject(),
        help="Arguments of the pipeline's call, by task too: {strength: 0.5} starts from the degraded image.",
        group="evaluation",
    )
    first_guess: Literal["grey", "mean", "telea", "biharmonic"] = option(
        "grey",
        help="What a restoration with a strength below 1 starts from where pixels are hidden.",
        group="evaluation",
    )
    num_restorations: int = option(
        1, help="How many restorations of each image are measured; 2 show diversity.", group="evaluation"
    )

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "num_restorations")
        if not self.tasks:
            self.require(not self.call_options, "--call_options is for --tasks, which is not set")
            self.require_default(False, ("first_guess", "num_restorations"), "is for --tasks, which is not set")
            return
        self._check_call_options()
        self.require(
            "diversity" not in (self.metrics or ()) or self.num_restorations > 1,
            "--metrics diversity compares restorations of one image: it needs --num_restorations 2 or more",
        )

    def _check_call_options(self) -> None:
        unknown = ", ".join(sorted(set(self.call_options) - set(self.tasks)))
        self.require(not unknown, f"--call_options are for {', '.join(self.tasks)}, not for {unknown}")
        self._check_mappings("call_options")
        parameters = inspect.signature(PalettePipeline.__call__).parameters
        known = [name for name in parameters if name not in _DECIDED_ELSEWHERE]
        unknown = ", ".join(sorted({name for options in self.call_options.values() for name in options} - set(known)))
        self.require(not unknown, f"--call_options must be among {', '.join(known)}, not {unknown}")

    @property
    def known_metrics(self) -> Sequence[str]:
        return RESTORATION_METRICS if self.tasks else super().known_metrics

    def restored(self) -> dict:
        """How images are restored and measured, as keywords of [`RestorationEvaluator`]."""
        return {
            **self.measured(),
            "task_options": self.task_options,
            "call_options": self.call_options,
            "first_guess": self.first_guess,
            "num_restorations": self.num_restorations,
        }
