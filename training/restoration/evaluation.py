"""Measuring and showing how well a pipeline, or a method that needs no training, restores degraded images."""

import itertools
import json
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path

import torch
from PIL import Image

from diffusers_ext.atomic import write_text_atomically
from diffusers_ext.data import ImageDataset, derive_seed
from diffusers_ext.data.conditions.segmentation import segmentation
from diffusers_ext.data.corruptions import Corruption
from diffusers_ext.data.untrained_fills import FILLS, load_fill, visible
from diffusers_ext.hub.card import markdown_table
from diffusers_ext.pipelines import PalettePipeline
from diffusers_ext.pixels import as_uint8, to_pixel_values
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.evaluation.pairs import PairedMeasures
from diffusers_ext.training.loop.context import Context
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.outputs import card_row, save_image
from diffusers_ext.training.loop.sampling import Generation
from diffusers_ext.training.restoration.tasks import Tasks


PANEL_IMAGES = 4
PANEL_COLUMNS = ("input", "output", "truth")


class RestorationEvaluator:
    """Measures how well a [`PalettePipeline`] undoes what tasks do to the images of a data set.

    The corruption of image i depends only on the seed, the task and i, so all methods see the same inputs.

    Args:
        tasks ([`Tasks`]): the tasks.
        dataset (`ImageDataset`): the images, preferably ones that were not trained on.
        context (`Context`): the device and the other processes.
        split (`str`): the name of their split, reported beside the measures.
        seed (`int`): of the corruptions.
        feature_extractor (`str`, *optional*), metrics (`list[str]`, *optional*): see [`load_feature_extractor`] and
            [`restoration_metrics`].
        num_samples (`int`): how many images are measured.
        batch_size (`int`): images per process and call of the pipeline.
        task_options, call_options (`dict[str, dict]`): by task: its options, and arguments of the pipeline's call.
        first_guess (`str`): what hidden pixels are filled with where a restoration starts from the image.
        num_restorations (`int`): how many restorations of each image are measured.

    Raises:
        ValueError, OSError, ImportError: if a feature extractor or a distance is not available, or can't be used for
            these images.
    """

    def __init__(
        self,
        tasks: Tasks,
        dataset: ImageDataset,
        context: Context,
        *,
        split: str,
        seed: int,
        feature_extractor: str | None,
        metrics: list[str] | None,
        num_samples: int,
        batch_size: int,
        task_options: dict[str, dict],
        call_options: dict[str, dict],
        first_guess: str,
        num_restorations: int,
    ):
        self.tasks, self.dataset, self.context, self.split, self.seed = tasks, dataset, context, split, seed
        self.num_samples, self.batch_size = num_samples, batch_size
        self.call_options, self.num_restorations = call_options, num_restorations
        self._settings = {"corruption_seed": seed, "task_options": dict(task_options), "first_guess": first_guess}
        self._measure = PairedMeasures(
            metrics, dataset, feature_extractor=feature_extractor, num_samples=num_samples, device=context.device
        )
        self.guess = load_fill(first_guess, dataset.channels)

    def __call__(self, generate: Generation, num_inference_steps: int, guidance_scales: list[float]) -> list[dict]:
        """Measure a pipeline: a row per task, and per guidance scale where the pipeline was trained for guidance.

        Args:
            generate (`Generation`): has the pipeline.
            num_inference_steps (`int`): the steps of its sampler.
            guidance_scales (`list[float]`): the scales to measure.
        """
        pipeline = generate.pipeline
        settings = {
            "num_inference_steps": num_inference_steps,
            "scheduler": type(pipeline.scheduler).__name__,
            "sampling_seed": generate.seed,
        }
        return [
            self._row(
                task,
                "model",
                partial(self._restore, generate, guidance_scale=scale, num_inference_steps=num_inference_steps),
                guidance_scale=scale,
                **settings,
            )
            for task in self.tasks.names
            for scale in ([None] if pipeline.guider is None else guidance_scales)
        ]

    def baselines(self) -> list[dict]:
        """Measure the methods that need no training, a row per task and method."""
        example, rows = self._first(1), []
        for task in self.tasks.names:
            for name, method in untrained_methods(task, self._corrupted(task, example, [0])).items():
                rows.append(self._row(task, name, partial(self._fill, method)))
        return rows

    def _fill(self, method: Callable, task: str, batch: dict, indices: list[int], corruption: Corruption):
        """The result of a method for a batch, (B, K, C, H, W): K times the same image, so its diversity is 0."""
        restored = method(corruption)[:, None]
        return restored.expand(-1, self.num_restorations, -1, -1, -1)

    def _first(self, count: int) -> dict[str, torch.Tensor]:
        """The first images of the data set, as `_batches` gives them; fewer if a batch is smaller."""
        _, batch = next(self._batches(0, 1))
        return {name: values[:count] for name, values in batch.items()}

    def _batches(self, process_index: int, num_processes: int) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        """The indices and the images, in [-1, 1] and on the CPU, of this process's share of the data set."""
        indices = itertools.count(process_index, num_processes)
        for batch in self.dataset.reference_batches(
            self.batch_size, process_index=process_index, num_processes=num_processes, limit=self.num_samples
        ):
            images = {name: to_pixel_values(values) for name, values in batch.items() if name.endswith("pixel_values")}
            yield list(itertools.islice(indices, len(images["pixel_values"]))), {**batch, **images}

    def _corrupted(self, task: str, batch: dict[str, torch.Tensor], indices: list[int]) -> Corruption:
        draw = Draw(derive_seed(self.seed, "corruption", task), torch.device("cpu"))
        return self.tasks.corrupt(task, batch, draw.begin(0, indices))

    def _row(self, task: str, method: str, restore: Callable, **settings) -> dict:
        """The measures of `restore(task, batch, indices, corruption)` on all images."""
        restored = (
            restore(task, batch, indices, self._corrupted(task, batch, indices))
            for indices, batch in self.context.progress(self._batches(**self.context.share), f"{task}: {method}")
        )
        values = self._measure(
            (batch["pixel_values"] for _, batch in self._batches(**self.context.share)),
            restored,
            self.context,
            class_labels=self._class_labels,
            provenance={
                **settings,
                "split": self.split,
                **self._settings,
                "call_options": self.call_options.get(task, {}),
            },
        )
        return {"task": task, "method": method, "guidance_scale": settings.get("guidance_scale"), **values}

    @cached_property
    def _class_labels(self) -> torch.Tensor | None:
        """The classes of this process's images, if a classifier measures them."""
        return self._measure.class_labels(batch for _, batch in self._batches(**self.context.share))

    def _restore(
        self, generate: Generation, task: str, batch: dict, indices: list[int], corruption: Corruption, **arguments
    ) -> torch.Tensor:
        """Restorations of a batch, uint8 (B, K, C, H, W) on the CPU; they depend on the seed and the index alone."""
        pipeline, count = generate.pipeline, self.num_restorations
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
            **self.call_options.get(task, {}),
            num_images_per_input=count,
            generator=generators,
            output_type="pt",
        ).images
        return images.mul(255).round().to("cpu", torch.uint8).unflatten(0, (-1, count))

    def try_call_options(self, pipeline: PalettePipeline) -> None:
        """Start a restoration of a blank image for each task with options, and stop it after a step.

        Raises:
            ValueError: naming `--call_options`, if the pipeline refuses them.
        """

        def stop(pipeline, *arguments):
            pipeline._interrupt = True
            return {}

        shape = (1, self.dataset.channels, *self.dataset.resolution)
        # A black conditioning image is also a map of the label 0.
        blank = {"pixel_values": torch.zeros(shape), "conditioning_pixel_values": -torch.ones(shape)}
        labels = {} if pipeline.unet.config.get("num_class_embeds") is None else {"class_labels": [0]}
        pipeline.set_progress_bar_config(disable=True)
        for task, options in self.call_options.items():
            inputs = pipeline_inputs(task, self._corrupted(task, blank, [0]), self.guess)
            try:
                pipeline(**inputs, **labels, **options, callback_on_step_end=stop, output_type="pt")
            except Exception as error:  # values of any kind fail in many ways
                reason = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(f"--call_options of {task}, {options}: {reason}") from error

    def panel(self, generate: Generation, num_images: int = PANEL_IMAGES) -> Image.Image:
        """The first images: a row per task, with the input, output and truth of each.

        Hidden pixels are gray. Label maps of numbers have colours, because their gray levels are nearly black.
        """
        batch, cells = self._first(num_images), []
        indices = list(range(len(batch["pixel_values"])))
        for task in self.tasks.names:
            corruption = self._corrupted(task, batch, indices)
            output = self._restore(generate, task, batch, indices, corruption)[:, 0]
            shown = visible(corruption)
            shown = segmentation(shown) if self.dataset.label_maps == "levels" else shown
            cells += [as_uint8(shown), output, as_uint8(batch["pixel_values"])]
        channels = max(cell.shape[1] for cell in cells)
        cells = [cell.expand(-1, channels, -1, -1) if cell.shape[1] == 1 else cell for cell in cells]
        rows = torch.stack(cells).unflatten(0, (-1, len(PANEL_COLUMNS))).transpose(1, 2)
        titles = list(PANEL_COLUMNS) * len(indices)
        return sample_grid(rows.flatten(0, 2), len(titles), titles, self.tasks.names)


def pipeline_inputs(task: str, corruption: Corruption, guess: Callable[[Corruption], torch.Tensor] = visible) -> dict:
    """The arguments of [`PalettePipeline`] that undo a corruption; `guess` fills the hidden pixels."""
    image = visible(corruption) if corruption.hidden is None else guess(corruption)
    inputs = {"task": task, "image": image / 2 + 0.5}
    if corruption.hidden is not None:
        inputs["mask_image"] = corruption.hidden > 0
    if "super_resolution" in task.split("+"):  # the corruption has enlarged the image already
        inputs["height"], inputs["width"] = corruption.conditioning_image.shape[2:]
    return inputs


def untrained_methods(task: str, example: Corruption) -> dict[str, Callable[[Corruption], torch.Tensor]]:
    """Methods that need no training, by name: the input as it is, or fills of hidden pixels. Images are in [-1, 1]."""
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
