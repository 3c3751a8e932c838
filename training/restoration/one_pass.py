"""What a network that restores images in one pass is shown, and how well it restores them."""

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from PIL import Image

from diffusers_ext.data import ImageDataset, derive_seed
from diffusers_ext.data.corruptions.levels import from_levels, to_levels
from diffusers_ext.data.corruptions.resampling import resample
from diffusers_ext.data.untrained_fills import visible
from diffusers_ext.pixels import as_uint8, to_pixel_values
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.evaluation.pairs import PairedMeasures
from diffusers_ext.training.loop.context import Context
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.sampling import Generation
from diffusers_ext.training.restoration.tasks import Tasks


ENLARGEMENT = "super_resolution"  # the name of the rows where images are made smaller and not degraded otherwise
ONE_PASS_ROWS = 6


class DegradedImages:
    """Makes the input of a network from clean images: first smaller by a factor, then degraded by tasks.

    Images are made smaller by Pillow's bicubic filter.

    Args:
        names (`list[str]`), options (`dict`): the tasks; see [`Tasks`]. Without tasks, images only become smaller.
        scale (`int`): how many times as high and wide the network makes images.
        size, channels: of the clean images.

    Raises:
        ValueError, ImportError: if a task does not exist, or can't handle such images or options.
    """

    def __init__(
        self, names: Sequence[str], options: dict[str, dict], scale: int, size: tuple[int, int], channels: int
    ):
        self.scale, self.names = scale, list(names) or [ENLARGEMENT]
        self._tasks = Tasks(names, options, tuple(side // scale for side in size), channels) if names else None

    def mix(self, batch: dict[str, torch.Tensor], draw: Draw) -> torch.Tensor:
        """Inputs (N, C, H / scale, W / scale) in [-1, 1], with a task per sample; hidden pixels are gray."""
        batch = self._reduced(batch)
        return batch["pixel_values"] if self._tasks is None else visible(self._tasks.mix(batch, draw))

    def of(self, task: str, batch: dict[str, torch.Tensor], draw: Draw) -> torch.Tensor:
        """As `mix`, for one task."""
        batch = self._reduced(batch)
        return batch["pixel_values"] if self._tasks is None else visible(self._tasks.corrupt(task, batch, draw))

    def _reduced(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if self.scale == 1:
            return batch
        images = batch["pixel_values"]
        size = tuple(side // self.scale for side in images.shape[2:])
        return {**batch, "pixel_values": from_levels(resample(to_levels(images), size))}


class OnePassEvaluator:
    """Measures and shows how a [`RestorationPipeline`] restores images, beside what it was shown.

    The degradation of image i depends only on the seed, the task and i.

    Args:
        degraded ([`DegradedImages`]): makes the inputs.
        dataset (`ImageDataset`): the clean images, preferably ones that were not trained on.
        context (`Context`): the device and the other processes.
        split (`str`): the name of their split, reported beside the measures.
        seed (`int`): of the degradations.
        feature_extractor (`str`, *optional*), metrics (`list[str]`, *optional*): what is measured; see
            [`load_feature_extractor`] and [`restoration_metrics`]. Nothing without both of them.
        num_samples (`int`): how many images are measured.
        batch_size (`int`): images per process and call of the pipeline.

    Raises:
        ValueError, OSError, ImportError: if a feature extractor or a distance is not available, or can't be used for
            these images.
    """

    def __init__(
        self,
        degraded: DegradedImages,
        dataset: ImageDataset,
        context: Context,
        *,
        split: str,
        seed: int,
        feature_extractor: str | None,
        metrics: list[str] | None,
        num_samples: int,
        batch_size: int,
    ):
        self.degraded, self.dataset, self.context = degraded, dataset, context
        self.split, self.seed, self.metrics = split, seed, metrics
        self.num_samples, self.batch_size = num_samples, batch_size
        self._measure = PairedMeasures(
            metrics, dataset, feature_extractor=feature_extractor, num_samples=num_samples, device=context.device
        )

    def __call__(self, generate: Generation) -> list[dict]:
        """Two rows per task: the input, enlarged by bicubic interpolation, and the restoration."""
        if self.metrics is None and self._measure.extractor is None:
            return []
        methods = {"input" if self.degraded.scale == 1 else "bicubic": self._enlarged}
        methods["model"] = lambda shown: restored(generate.pipeline, shown)
        return [self._row(task, *method) for task in self.degraded.names for method in methods.items()]

    def _row(self, task: str, name: str, method) -> dict:
        share = self.context.share
        pairs = self.context.progress(self.pairs(task, **share), f"{task}: {name}")
        values = self._measure(
            self._truth(**share),
            (method(shown) for shown, _ in pairs),
            self.context,
            class_labels=self._class_labels,
            provenance={"split": self.split, "corruption_seed": self.seed},
        )
        return {"task": task, "method": name, **values}

    def _truth(self, process_index: int, num_processes: int) -> Iterator[torch.Tensor]:
        return (batch["pixel_values"] for batch in self._batches(process_index, num_processes))

    def _batches(self, process_index: int, num_processes: int) -> Iterator[dict[str, torch.Tensor]]:
        return self.dataset.reference_batches(self.batch_size, process_index, num_processes, self.num_samples)

    @cached_property
    def _class_labels(self) -> torch.Tensor | None:
        """The classes of this process's images, if a classifier measures them."""
        return self._measure.class_labels(self._batches(**self.context.share))

    def pairs(
        self, task: str, process_index: int = 0, num_processes: int = 1
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Inputs and clean images in batches, in [-1, 1]: a process's share, or all."""
        indices = itertools.count(process_index, num_processes)
        seed = derive_seed(self.seed, "corruption", task)
        for batch in self._batches(process_index, num_processes):
            images = {name: to_pixel_values(values) for name, values in batch.items() if name.endswith("pixel_values")}
            own = list(itertools.islice(indices, len(images["pixel_values"])))
            draw = Draw(seed, torch.device("cpu")).begin(0, own)
            yield self.degraded.of(task, images, draw), images["pixel_values"]

    def _enlarged(self, shown: torch.Tensor) -> torch.Tensor:
        """Inputs (N, C, h, w) in [-1, 1] at the size of the clean images, uint8, by Pillow's bicubic filter."""
        size = tuple(side * self.degraded.scale for side in shown.shape[2:])
        return resample(to_levels(shown), size).to(torch.uint8)

    def panel(self, generate: Generation) -> Image.Image:
        """Rows of input, restoration and truth; with several tasks, some rows of each."""
        cells, names = [], []
        count = math.ceil(ONE_PASS_ROWS / len(self.degraded.names))
        for task in self.degraded.names:
            shown, truth = (images[:count] for images in next(self.pairs(task)))
            large = F.interpolate(shown, scale_factor=self.degraded.scale)  # its pixels are visible
            columns = [as_uint8(large), restored(generate.pipeline, shown), as_uint8(truth)]
            cells.append(torch.stack(columns, dim=1).flatten(0, 1))
            names += [task] * len(truth)
        return sample_grid(torch.cat(cells), 3, ["input", "output", "truth"], names)


def restored(pipeline, shown: torch.Tensor) -> torch.Tensor:
    """Restorations of images in [-1, 1], uint8 on the CPU."""
    images = pipeline(shown / 2 + 0.5, output_type="pt").images
    return images.mul(255).round().to("cpu", torch.uint8)
