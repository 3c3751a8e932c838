"""Restoration tasks, for training and measures: which there are, what they do to batches, how well they are undone."""

import inspect
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator, PartialState
from PIL import Image
from tqdm.auto import tqdm

from diffusers_ext.data import ImageDataset, derive_seed
from diffusers_ext.data.corruptions import Corruption, describe_corruptions, load_corruptions
from diffusers_ext.data.transforms import to_pixel_values
from diffusers_ext.data.untrained_fills import FILLS, load_fill, visible
from diffusers_ext.hub.atomic import write_text_atomically
from diffusers_ext.hub.card import markdown_table
from diffusers_ext.metrics import METRICS, load_feature_extractor
from diffusers_ext.metrics.compute import check_measurable
from diffusers_ext.metrics.perceptual import as_uint8
from diffusers_ext.metrics.restoration import RESTORATION_METRICS
from diffusers_ext.pipelines import PalettePipeline
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.evaluation.pairs import PairedMeasures
from diffusers_ext.training.loop.configuration import DataConfig, EvaluationConfig, JSONObject, option
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.outputs import card_row, save_image
from diffusers_ext.training.loop.sampling import Generation


TRANSLATION = "translation"  # the one task that is no corruption: its inputs come with the images
# Arguments of a pipeline's call that a task, other options or this evaluation decide.
_GIVEN = {
    *("self", "image", "task", "mask_image", "padding", "scale_factor", "height", "width", "class_labels"),
    *("num_images_per_input", "num_inference_steps", "timesteps", "sigmas", "guidance_scale", "generator", "latents"),
    *("output_type", "return_dict", "callback_on_step_end", "callback_on_step_end_tensor_inputs"),
}
PANEL_IMAGES = 4
PANEL_COLUMNS = ("input", "output", "truth")


def _tasks_help() -> str:
    lines = [f"{name}: {line}" for name, line in describe_corruptions().items()]
    text = (
        "The restoration tasks, one or several, of which each sample gets one at random. They can be joined, as in "
        "deblurring+jpeg_restoration, and be functions of yours, as module:function. " + " ".join(lines)
    )
    # argparse formats help texts.
    return f"{text} {TRANSLATION}: paired images, see --conditioning_image_column.".replace("%", "%%")


@dataclass
class RestorationConfig(DataConfig, EvaluationConfig):
    """Which tasks are trained or measured."""

    tasks: list[str] | None = option(help=_tasks_help())
    task_options: JSONObject = option(
        JSONObject(), help="What tasks are told, by task, as JSON or a YAML mapping: '{\"super_resolution\": {...}}'."
    )
    call_options: JSONObject = option(
        JSONObject(),
        help="Arguments of the pipeline's call, by task too: {strength: 0.5} starts from the degraded image.",
    )
    first_guess: Literal["grey", "mean", "telea", "biharmonic"] = option(
        "grey", help="What a restoration with a strength below 1 starts from where pixels are hidden."
    )
    num_restorations: int = option(1, help="How many restorations of each image are measured; 2 show diversity.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "num_restorations")
        is_paired = TRANSLATION in (self.tasks or ())
        self.require(
            is_paired == (self.conditioning_image_column is not None) or not self.tasks,
            f"--tasks {TRANSLATION} and --conditioning_image_column, which names its inputs, need each other",
        )
        if not self.tasks:
            return
        self.require(
            not self.task_options or set(self.tasks) != {TRANSLATION}, f"--tasks {TRANSLATION} has no --task_options"
        )
        unknown = ", ".join(sorted(set(self.call_options) - set(self.tasks)))
        self.require(not unknown, f"--call_options are for {', '.join(self.tasks)}, not for {unknown}")
        for name in ("task_options", "call_options"):
            for task, options in getattr(self, name).items():
                self.require(isinstance(options, dict), f"--{name} of {task} must be a mapping, not {options!r}")
        known = [name for name in inspect.signature(PalettePipeline.__call__).parameters if name not in _GIVEN]
        unknown = ", ".join(sorted({name for options in self.call_options.values() for name in options} - set(known)))
        self.require(not unknown, f"--call_options must be among {', '.join(known)}, not {unknown}")
        metrics = self.metrics or ()
        needy = [name for name in metrics if name in (*METRICS, "perceptual_distance", "deep_feature_distance")]
        self.require(not needy or self.feature_extractor, f"--metrics {' '.join(needy)} needs --feature_extractor")
        self.require(
            "diversity" not in metrics or self.num_restorations > 1,
            "--metrics diversity compares restorations of one image: it needs --num_restorations 2 or more",
        )

    @property
    def known_metrics(self) -> Sequence[str]:
        return RESTORATION_METRICS if self.tasks else super().known_metrics


class Tasks:
    """What tasks make of the batches of a data set.

    Args:
        config ([`RestorationConfig`]): names them, and their options.
        size, channels: of the images.

    Raises:
        ValueError, ImportError: if there is no such task, or if it can't do with such images or options.
    """

    def __init__(self, config: RestorationConfig, size: tuple[int, int], channels: int):
        self.names = list(config.tasks)
        corruptions = [name for name in self.names if name != TRANSLATION]
        if len(corruptions) + 1 < len(self.names):
            raise ValueError(f"--tasks must be different ones, not {' '.join(self.names)}.")
        self._corruptions = load_corruptions(corruptions, config.task_options) if corruptions else {}
        blank = torch.zeros(1, channels, *size)
        for name in corruptions:  # options are checked by use
            shown = visible(self.corrupt(name, {"pixel_values": blank}, Draw(0, blank.device).begin(0, [0])))
            if not shown.abs().max() <= 1:
                raise ValueError(f"The task {name} must give images in [-1, 1], wherever they are not `hidden`.")

    def corrupt(self, task: str, batch: dict[str, torch.Tensor], draw: Draw) -> Corruption:
        """What a network is shown of a batch in [-1, 1], for one task."""
        if task == TRANSLATION:
            return Corruption(batch["conditioning_pixel_values"])
        return self._corruptions[task](batch["pixel_values"], draw)

    def mix(self, batch: dict[str, torch.Tensor], draw: Draw) -> Corruption:
        """What a network is shown of a batch in [-1, 1], for a task per sample, drawn from the sample's stream.

        Returns:
            `Corruption`: with a mask, which is 1 everywhere for tasks that have none, and with `hidden`, which is 0
            everywhere where none of an image is.
        """
        images, chosen = batch["pixel_values"], draw.integers(len(self.names))
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


class RestorationEvaluator:
    """Measures how well a [`PalettePipeline`] undoes what tasks do to the images of a data set.

    What happens to image i depends on the seed, the task and i alone, so that all methods see the same.

    Args:
        config ([`RestorationConfig`] and `SamplingConfig`): what is measured, and how.
        tasks ([`Tasks`]): the tasks.
        dataset (`ImageDataset`): the images; best such as were not trained on.
        split (`str`): the name of their split, put beside the numbers.

    Raises:
        ValueError, OSError, ImportError: if a feature extractor or a distance can't be had, or is of no use for such
            images.
    """

    def __init__(self, config, tasks: Tasks, dataset: ImageDataset, split: str):
        self.config, self.tasks, self.dataset, self.split = config, tasks, dataset, split
        state = PartialState()
        self._share = (state.process_index, state.num_processes)
        self.extractor = None
        if config.feature_extractor is not None:
            self.extractor = load_feature_extractor(config.feature_extractor, device=state.device)
            count = min(config.num_evaluation_samples, dataset.num_examples or math.inf)
            check_measurable(self.extractor, (dataset.channels, *dataset.resolution), config.metrics, count, count)
        self._measure = PairedMeasures(config.metrics, dataset, self.extractor)
        self.guess = load_fill(config.first_guess, dataset.channels)

    def __call__(self, generate: Generation, num_inference_steps: int | None = None) -> list[dict]:
        """Measure a pipeline: a row per task, and per guidance scale where the pipeline was trained for guidance.

        Args:
            generate (`Generation`): has the pipeline.
            num_inference_steps (`int`, *optional*): the steps of its sampler, instead of its own default.
        """
        pipeline = generate.pipeline
        steps = num_inference_steps or pipeline.config.default_num_inference_steps
        scales = [None] if pipeline.guider is None else self.config.guidance_scales
        settings = {
            "num_inference_steps": steps,
            "scheduler": type(pipeline.scheduler).__name__,
            "sampling_seed": generate.seed,
        }
        return [
            self._row(
                task,
                "model",
                partial(self._restore, generate, guidance_scale=scale, num_inference_steps=steps),
                generate.accelerator,
                guidance_scale=scale,
                **settings,
            )
            for task in self.tasks.names
            for scale in scales
        ]

    def baselines(self, accelerator: Accelerator) -> list[dict]:
        """Measure what needs no training, a row per task and method."""
        example, rows = self._first(1), []
        for task in self.tasks.names:
            for name, method in untrained_methods(task, self._corrupted(task, example, [0])).items():
                rows.append(self._row(task, name, partial(self._fill, method), accelerator))
        return rows

    def _fill(self, method: Callable, task: str, batch: dict, indices: list[int], corruption: Corruption):
        """What a method makes of a batch, (B, K, C, H, W): K times the same, which shows as no diversity."""
        restored = method(corruption)[:, None]
        return restored.expand(-1, self.config.num_restorations, -1, -1, -1)

    def _first(self, count: int) -> dict[str, torch.Tensor]:
        """The first images of the data set, as `_batches` gives them; fewer if a batch is smaller."""
        _, batch = next(self._batches(0, 1))
        return {name: values[:count] for name, values in batch.items()}

    def _batches(self, process_index: int, num_processes: int) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        """The indices and the images, in [-1, 1] and on the CPU, of this process's share of the data set."""
        indices = itertools.count(process_index, num_processes)
        for batch in self.dataset.reference_batches(
            self.config.evaluation_batch_size,
            process_index=process_index,
            num_processes=num_processes,
            limit=self.config.num_evaluation_samples,
        ):
            images = {name: to_pixel_values(values) for name, values in batch.items() if name.endswith("pixel_values")}
            yield list(itertools.islice(indices, len(images["pixel_values"]))), {**batch, **images}

    def _corrupted(self, task: str, batch: dict[str, torch.Tensor], indices: list[int]) -> Corruption:
        draw = Draw(derive_seed(self.config.seed, "corruption", task), torch.device("cpu"))
        return self.tasks.corrupt(task, batch, draw.begin(0, indices))

    def _row(self, task: str, method: str, restore: Callable, accelerator: Accelerator, **settings) -> dict:
        """The measures of `restore(task, batch, indices, corruption)` on all images."""
        progress = tqdm(
            self._batches(*self._share), f"{task}: {method}", disable=not accelerator.is_local_main_process
        )
        restored = (
            restore(task, batch, indices, self._corrupted(task, batch, indices)) for indices, batch in progress
        )
        values = self._measure(
            (batch["pixel_values"] for _, batch in self._batches(*self._share)),
            restored,
            accelerator,
            class_labels=self._class_labels,
            provenance={
                **settings,
                "split": self.split,
                "corruption_seed": self.config.seed,
                "task_options": dict(self.config.task_options),
                "call_options": self.config.call_options.get(task, {}),
                "first_guess": self.config.first_guess,
            },
        )
        return {"task": task, "method": method, "guidance_scale": settings.get("guidance_scale"), **values}

    @cached_property
    def _class_labels(self) -> torch.Tensor | None:
        """The classes of this process's images, where somebody asks."""
        if self.dataset.id2label is None or self.extractor is None:
            return None
        return torch.cat([batch["class_labels"] for _, batch in self._batches(*self._share)])

    def _restore(
        self, generate: Generation, task: str, batch: dict, indices: list[int], corruption: Corruption, **arguments
    ) -> torch.Tensor:
        """Restorations of a batch, uint8 (B, K, C, H, W) on the CPU; those of image i depend on the seed and i."""
        pipeline, count = generate.pipeline, self.config.num_restorations
        if pipeline.unet.config.get("num_class_embeds") is not None:
            arguments["class_labels"] = batch["class_labels"]
        generators = [
            torch.Generator().manual_seed(derive_seed(generate.seed, "restoration", index, repetition))
            for index in indices
            for repetition in range(count)
        ]
        images = pipeline(
            **pipeline_inputs(task, corruption, self.guess),
            **arguments,
            **self.config.call_options.get(task, {}),
            num_images_per_input=count,
            generator=generators,
            output_type="pt",
        ).images
        return images.mul(255).round().to("cpu", torch.uint8).unflatten(0, (-1, count))

    def panel(self, generate: Generation, num_images: int = PANEL_IMAGES) -> Image.Image:
        """The first images: a row per task, with input, output and truth of each. Hidden pixels are gray."""
        batch, cells = self._first(num_images), []
        indices = list(range(len(batch["pixel_values"])))
        for task in self.tasks.names:
            corruption = self._corrupted(task, batch, indices)
            output = self._restore(generate, task, batch, indices, corruption)[:, 0]
            cells += [as_uint8(visible(corruption)), output, as_uint8(batch["pixel_values"])]
        rows = torch.stack(cells).unflatten(0, (-1, len(PANEL_COLUMNS))).transpose(1, 2)
        titles = list(PANEL_COLUMNS) * len(indices)
        return sample_grid(rows.flatten(0, 2), len(titles), titles, self.tasks.names)


def pipeline_inputs(task: str, corruption: Corruption, guess: Callable[[Corruption], torch.Tensor] = visible) -> dict:
    """The arguments of [`PalettePipeline`] that have it undo a corruption, with a guess of what is hidden."""
    image = visible(corruption) if corruption.hidden is None else guess(corruption)
    inputs = {"task": task, "image": image / 2 + 0.5}
    if corruption.hidden is not None:
        inputs["mask_image"] = corruption.hidden > 0
    if "super_resolution" in task.split("+"):  # brought to size already
        inputs["height"], inputs["width"] = corruption.conditioning_image.shape[2:]
    return inputs


def untrained_methods(task: str, example: Corruption) -> dict[str, Callable[[Corruption], torch.Tensor]]:
    """What needs no training, by name: the input as it is, or fillings of what is hidden. Images are in [-1, 1]."""
    if example.hidden is None:
        return {{"colorization": "grey", "super_resolution": "bicubic"}.get(task, "input"): visible}
    channels = example.conditioning_image.shape[1]
    return {fill.title: fill.function for fill in FILLS.values() if fill.is_usable(channels)}


def write_report(path: str, rows: list[dict], panel: Image.Image) -> str:
    """Write rows as JSON to `path`, and beside it a table (.md) and a panel (.png).

    Returns:
        `str`: the table, in Markdown.
    """
    table = markdown_table([card_row(row) for row in rows])
    write_text_atomically(path, json.dumps(rows, indent=2) + "\n")
    write_text_atomically(Path(path).with_suffix(".md"), table + "\n")
    save_image(panel, Path(path).with_suffix(".png"))
    return table
