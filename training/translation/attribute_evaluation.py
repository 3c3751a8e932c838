"""Measuring images that are translated to each of several domains, and showing them."""

import itertools
from collections.abc import Iterator

import torch
from PIL import Image

from diffusers_ext.data import ImageDataset
from diffusers_ext.metrics import compute_metrics
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.evaluation.measurable import load_measuring_extractor
from diffusers_ext.training.loop.context import Context
from diffusers_ext.training.loop.sampling import Generation


PANEL_ROWS = 8


class AttributeEvaluator:
    """Measures and shows how an [`AttributeTranslationPipeline`] translates images to each of their domains.

    For each domain, the images of all other domains are translated to it and compared with its own images.

    Args:
        dataset ([`ImageDataset`]): images whose classes are the domains, preferably ones that were not trained on.
        context (`Context`): the device and the other processes.
        split (`str`): the name of their split, reported beside the measures.
        feature_extractor (`str`, *optional*), metrics (`list[str]`, *optional*): what is measured; see
            [`load_feature_extractor`] and [`compute_metrics`]. Nothing without a feature extractor.
        num_samples (`int`): how many images are measured.
        batch_size (`int`): images per process and call of the pipeline.

    Raises:
        ValueError, OSError, ImportError: if the feature extractor is not available, or can't be used for these images.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        context: Context,
        *,
        split: str,
        feature_extractor: str | None,
        metrics: list[str] | None,
        num_samples: int,
        batch_size: int,
    ):
        self.dataset, self.context, self.split, self.metrics = dataset, context, split, metrics
        self.num_samples, self.batch_size = num_samples, batch_size
        count = num_samples // len(dataset.id2label)  # about as many images has each domain
        self.extractor = load_measuring_extractor(
            feature_extractor,
            metrics,
            shape=(dataset.channels, *dataset.resolution),
            num_real=count,
            num_generated=count,
            device=context.device,
        )

    def __call__(self, generate: Generation) -> list[dict]:
        """Measure a pipeline: a row per domain, or none without a feature extractor."""
        if self.extractor is None:
            return []
        return [self._row(generate, domain) for domain in self.dataset.id2label]

    def _row(self, generate: Generation, domain: int) -> dict:
        context, name = self.context, self.dataset.id2label[domain]
        batches = context.progress(self._batches(**context.share), f"Translating to {name}")
        others = (images[labels != domain] for images, labels in batches)
        own = (images[labels == domain] for images, labels in self._batches(**context.share))
        translated = context.gather_features(
            self.extractor, (translate(generate.pipeline, images, domain) for images in others if len(images))
        )
        values = compute_metrics(
            context.gather_features(self.extractor, (images for images in own if len(images))),
            translated,
            self.metrics,
            extractor=self.extractor,
            requested_labels=[domain] * len(translated.features),
            id2label=self.dataset.id2label,
            provenance={"split": self.split},
        )
        return {"task": f"to {name}", **values}

    def _batches(self, process_index: int, num_processes: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The measured images, uint8 (B, C, H, W), and their domains, (B,), of a process's share of the data set."""
        for batch in self.dataset.reference_batches(self.batch_size, process_index, num_processes, self.num_samples):
            yield batch["pixel_values"], batch["class_labels"]

    def panel(self, generate: Generation) -> Image.Image:
        """Rows of an image and its translation to each domain; the domains take turns in the rows."""
        names, found = self.dataset.id2label, {domain: [] for domain in self.dataset.id2label}
        for images, labels in self._batches(0, 1):
            for image, label in zip(images, labels.tolist(), strict=True):
                found[label].append(image)
        turns = itertools.zip_longest(*found.values())  # a domain may have fewer images than others, or none
        rows = [image for turn in turns for image in turn if image is not None][:PANEL_ROWS]
        images = torch.stack(rows)
        cells = torch.stack([images, *(translate(generate.pipeline, images, domain) for domain in names)], dim=1)
        return sample_grid(cells.flatten(0, 1), 1 + len(names), ["image", *(f"to {name}" for name in names.values())])


def translate(pipeline, images: torch.Tensor, domain: int) -> torch.Tensor:
    """Images translated to a domain: from uint8 (B, C, H, W) to the same, on the CPU."""
    return pipeline(images, target=domain, output_type="pt").images.mul(255).round().to("cpu", torch.uint8)
