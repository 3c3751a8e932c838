"""Measuring translated images, beside their truth if there are pairs and otherwise as a set, and showing them."""

import itertools
import math
from collections.abc import Iterator

import torch
from PIL import Image

from diffusers_ext.data import ImageDataset
from diffusers_ext.data.unpaired import UnpairedImageDataset
from diffusers_ext.metrics import compute_metrics, load_feature_extractor
from diffusers_ext.metrics.compute import check_measurable
from diffusers_ext.pixels import as_uint8, to_pixel_values
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.evaluation.pairs import PairedMeasures
from diffusers_ext.training.loop.context import Context
from diffusers_ext.training.loop.sampling import Generation
from diffusers_ext.training.translation.inputs import MadeInputs


PANEL_ROWS = 6
FORWARD, BACKWARD = "A to B", "B to A"


class TranslationEvaluator:
    """Measures and shows how an [`ImageTranslationPipeline`] translates the images of a data set.

    Domain A is translated to domain B. In a paired data set, A are the conditioning images; in an unpaired one, A are
    the images of the first domain.

    Args:
        dataset ([`ImageDataset`] or [`UnpairedImageDataset`]): the images, preferably ones that were not trained on.
        context (`Context`): the device and the other processes.
        make_inputs ([`MadeInputs`], *optional*): makes the images of A from the images of B, for a data set without A.
        is_swapped (`bool`): whether A and B are swapped.
        split (`str`): the name of their split, reported beside the measures.
        feature_extractor (`str`, *optional*), metrics (`list[str]`, *optional*): what is measured; see
            [`load_feature_extractor`], [`restoration_metrics`] and [`compute_metrics`]. Nothing without both of them.
        num_samples (`int`): how many images are measured.
        batch_size (`int`): images per process and call of the pipeline.

    Raises:
        ValueError, OSError, ImportError: if a feature extractor or a distance is not available, or can't be used for
            these images.
    """

    def __init__(
        self,
        dataset: ImageDataset | UnpairedImageDataset,
        context: Context,
        *,
        make_inputs: MadeInputs | None,
        is_swapped: bool,
        split: str,
        feature_extractor: str | None,
        metrics: list[str] | None,
        num_samples: int,
        batch_size: int,
    ):
        self.dataset, self.context, self.make_inputs = dataset, context, make_inputs
        self.is_swapped, self.split, self.metrics = is_swapped, split, metrics
        self.num_samples, self.batch_size = num_samples, batch_size
        self.is_paired = not isinstance(dataset, UnpairedImageDataset)
        self.extractor = None
        if feature_extractor is not None:
            self.extractor = load_feature_extractor(feature_extractor, device=context.device)
            sizes = [part.num_examples or math.inf for part in self._parts()]
            count = min(num_samples, *sizes)
            check_measurable(self.extractor, (dataset.channels, *dataset.resolution), metrics, count, count)
        self._compare_pairs = None
        if self.is_paired:
            self._compare_pairs = PairedMeasures(metrics, dataset, self.extractor, context.device)

    def _parts(self) -> list[ImageDataset]:
        """The data sets that the images of both domains come from."""
        return [self.dataset] if self.is_paired else [self.dataset.source, self.dataset.target]

    def __call__(self, generate: Generation) -> list[dict]:
        """Measure a pipeline: a row per direction, or none if neither metrics nor a feature extractor are given."""
        if self.metrics is None and self.extractor is None:
            return []
        directions = [False] if generate.pipeline.reverse_generator is None else [False, True]
        return [self._row(generate, reverse) for reverse in directions]

    def _row(self, generate: Generation, reverse: bool) -> dict:
        context, task = self.context, BACKWARD if reverse else FORWARD
        inputs = context.progress(self.images("B" if reverse else "A", **context.share), f"Translating {task}")
        outputs = (translate(generate.pipeline, images, reverse) for images in inputs)
        wanted = self.images("A" if reverse else "B", **context.share)
        if self.is_paired:
            values = self._compare_pairs(wanted, outputs, context)
        else:
            values = compute_metrics(
                context.gather_features(self.extractor, wanted),
                context.gather_features(self.extractor, outputs),
                self.metrics,
                extractor=self.extractor,
            )
        return {"task": task, **values, "provenance": {**values["provenance"], "split": self.split}}

    def images(self, domain: str, process_index: int = 0, num_processes: int = 1) -> Iterator[torch.Tensor]:
        """The measured images of domain "A" or "B" in batches, uint8 (B, C, H, W): a process's share, or all."""
        is_first = (domain == "A") != self.is_swapped
        dataset, name = self.dataset, "conditioning_pixel_values" if is_first else "pixel_values"
        if not self.is_paired:
            dataset, name = (dataset.source if is_first else dataset.target), "pixel_values"
        batches = dataset.reference_batches(self.batch_size, process_index, num_processes, self.num_samples)
        indices = itertools.count(process_index, num_processes)
        for batch in batches:
            if is_first and self.make_inputs is not None:
                images, own = batch["pixel_values"], list(itertools.islice(indices, len(batch["pixel_values"])))
                yield as_uint8(self.make_inputs.of(to_pixel_values(images), own))
            else:
                yield batch[name]

    def _first(self, domain: str) -> torch.Tensor:
        """The images of a domain that are shown: the first ones."""
        images = itertools.islice(itertools.chain.from_iterable(self.images(domain)), PANEL_ROWS)
        return torch.stack(list(images))

    def panel(self, generate: Generation) -> Image.Image:
        """Rows of input, output and truth; or with two generators, for each direction: input, output, and the output
        translated back."""
        pipeline = generate.pipeline
        first, second = self._first("A"), self._first("B")
        forward = translate(pipeline, first, reverse=False)
        if pipeline.reverse_generator is None:
            columns = [("input", first), ("output", forward), ("truth", second)]
        else:
            backward = translate(pipeline, second, reverse=True)
            columns = [
                ("A", first),
                (FORWARD, forward),
                ("and back", translate(pipeline, forward, reverse=True)),
                ("B", second),
                (BACKWARD, backward),
                ("and back", translate(pipeline, backward, reverse=False)),
            ]
        titles, images = zip(*columns, strict=True)
        count = min(map(len, images))
        cells = torch.stack([column[:count] for column in images], dim=1)
        return sample_grid(cells.flatten(0, 1), len(columns), list(titles))


def translate(pipeline, images: torch.Tensor, reverse: bool) -> torch.Tensor:
    """The translations of images; both are uint8 (B, C, H, W), and the translations are on the CPU."""
    outputs = pipeline(images, reverse=reverse, output_type="pt").images
    return outputs.mul(255).round().to("cpu", torch.uint8)
