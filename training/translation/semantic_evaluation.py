"""Measuring images that are made of label maps, beside the true ones, and showing them."""

import itertools
from collections.abc import Iterator

import torch
from PIL import Image

from diffusers_ext.data import ImageDataset, derive_seed
from diffusers_ext.data.conditions.segmentation import segmentation
from diffusers_ext.pixels import as_uint8, to_pixel_values
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.evaluation.pairs import PairedMeasures
from diffusers_ext.training.loop.context import Context
from diffusers_ext.training.loop.sampling import Generation


PANEL_ROWS = 6


class SemanticEvaluator:
    """Measures and shows how a [`SemanticSynthesisPipeline`] makes images of the label maps of a data set.

    Args:
        dataset ([`ImageDataset`]): images with label maps, preferably ones that were not trained on.
        context (`Context`): the device and the other processes.
        num_styles (`int`): how many images are made of a map; their diversity is measured if there are several.
        split (`str`): the name of their split, reported beside the measures.
        feature_extractor (`str`, *optional*), metrics (`list[str]`, *optional*): what is measured; see
            [`load_feature_extractor`] and [`restoration_metrics`]. Nothing without both of them.
        num_samples (`int`): how many label maps are used.
        batch_size (`int`): label maps per process and call of the pipeline.

    Raises:
        ValueError, OSError, ImportError: if a feature extractor or a distance is not available, or can't be used for
            these images.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        context: Context,
        *,
        num_styles: int,
        split: str,
        feature_extractor: str | None,
        metrics: list[str] | None,
        num_samples: int,
        batch_size: int,
    ):
        self.dataset, self.context, self.num_styles = dataset, context, num_styles
        self.split, self.metrics = split, metrics
        self.num_samples, self.batch_size = num_samples, batch_size
        self._measure = PairedMeasures(
            metrics, dataset, feature_extractor=feature_extractor, num_samples=num_samples, device=context.device
        )

    def __call__(self, generate: Generation) -> list[dict]:
        """Measure a pipeline: one row, or none if neither metrics nor a feature extractor are given."""
        if self.metrics is None and self._measure.extractor is None:
            return []
        context = self.context
        batches = context.progress(self._batches(**context.share), "Images of label maps")
        outputs = (self._outputs(generate, batch, indices) for indices, batch in batches)
        truth = (batch["pixel_values"] for _, batch in self._batches(**context.share))
        class_labels = self._measure.class_labels(batch for _, batch in self._batches(**context.share))
        provenance = {"split": self.split}
        return [self._measure(truth, outputs, context, class_labels=class_labels, provenance=provenance)]

    def panel(self, generate: Generation) -> Image.Image:
        """Rows of a label map in colours, the images that are made of it, and the true one."""
        indices, batch = next(self._batches(0, 1))
        indices, batch = indices[:PANEL_ROWS], {name: values[:PANEL_ROWS] for name, values in batch.items()}
        outputs = self._outputs(generate, batch, indices)
        maps = as_uint8(segmentation(to_pixel_values(batch["conditioning_pixel_values"])))
        cells = [maps, *outputs.unbind(dim=1), batch["pixel_values"]]
        cells = torch.stack([cell.expand(-1, 3, -1, -1) for cell in cells], dim=1)
        titles = ["labels", *["image"] * self.num_styles, "truth"]
        return sample_grid(cells.flatten(0, 1), len(titles), titles)

    def _batches(self, process_index: int, num_processes: int) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        """The indices and the uint8 images (B, C, H, W) of a process's share of the data set."""
        indices = itertools.count(process_index, num_processes)
        for batch in self.dataset.reference_batches(self.batch_size, process_index, num_processes, self.num_samples):
            yield list(itertools.islice(indices, len(batch["pixel_values"]))), batch

    def _outputs(self, generate: Generation, batch: dict[str, torch.Tensor], indices: list[int]) -> torch.Tensor:
        """Images of label maps, uint8 (B, K, C, H, W) on the CPU; they depend on the seed and the index alone."""
        generators = [
            torch.Generator().manual_seed(derive_seed(generate.seed, "style", index, repetition))
            for index in indices
            for repetition in range(self.num_styles)
        ]
        instances = batch.get("instance_pixel_values")
        images = generate.pipeline(
            list(batch["conditioning_pixel_values"][:, 0]),
            instance_map=None if instances is None else list(instances),
            num_images_per_input=self.num_styles,
            generator=generators,
            output_type="pt",
        ).images
        return images.mul(255).round().to("cpu", torch.uint8).unflatten(0, (-1, self.num_styles))
