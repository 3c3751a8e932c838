"""Measuring translated images, beside their truth if there are pairs and otherwise as a set, and showing them."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from PIL import Image

from diffusers_ext.data import ImageDataset, derive_seed
from diffusers_ext.data.unpaired import UnpairedImageDataset
from diffusers_ext.metrics import compute_metrics
from diffusers_ext.pixels import as_uint8, to_pixel_values
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.evaluation.measurable import load_measuring_extractor
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
        num_outputs (`int`): how many translations of an image are measured and shown, for paired data sets; their
            diversity is measured if there are several.
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
        num_outputs: int,
        split: str,
        feature_extractor: str | None,
        metrics: list[str] | None,
        num_samples: int,
        batch_size: int,
    ):
        self.dataset, self.context, self.make_inputs = dataset, context, make_inputs
        self.is_swapped, self.num_outputs, self.split, self.metrics = is_swapped, num_outputs, split, metrics
        self.num_samples, self.batch_size = num_samples, batch_size
        self.is_paired = not isinstance(dataset, UnpairedImageDataset)
        self._compare_pairs = None
        if self.is_paired:
            self._compare_pairs = PairedMeasures(
                metrics, dataset, feature_extractor=feature_extractor, num_samples=num_samples, device=context.device
            )
            self.extractor = self._compare_pairs.extractor
        else:
            sizes = [part.num_examples or math.inf for part in (dataset.source, dataset.target)]
            count = min(num_samples, *sizes)
            self.extractor = load_measuring_extractor(
                feature_extractor,
                metrics,
                shape=(dataset.channels, *dataset.resolution),
                num_real=count,
                num_generated=count,
                device=context.device,
            )

    def __call__(self, generate: Generation) -> list[dict]:
        """Measure a pipeline: a row per direction, or none if neither metrics nor a feature extractor are given."""
        if self.metrics is None and self.extractor is None:
            return []
        directions = [False] if generate.pipeline.reverse_generator is None else [False, True]
        return [self._row(generate, reverse) for reverse in directions]

    def _row(self, generate: Generation, reverse: bool) -> dict:
        context, task = self.context, BACKWARD if reverse else FORWARD
        inputs = context.progress(self.images("B" if reverse else "A", **context.share), f"Translating {task}")
        outputs = self._translations(generate, inputs, reverse, **context.share)
        wanted = self.images("A" if reverse else "B", **context.share)
        if self.is_paired:
            class_labels = self._compare_pairs.class_labels(self._batches(self.dataset, **context.share))
            values = self._compare_pairs(wanted, outputs, context, class_labels=class_labels)
        else:
            values = compute_metrics(
                context.gather_features(self.extractor, wanted),
                context.gather_features(self.extractor, (images[:, 0] for images in outputs)),
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
        batches = self._batches(dataset, process_index, num_processes)
        indices = itertools.count(process_index, num_processes)
        for batch in batches:
            if is_first and self.make_inputs is not None:
                images, own = batch["pixel_values"], list(itertools.islice(indices, len(batch["pixel_values"])))
                yield as_uint8(self.make_inputs.of(to_pixel_values(images), own))
            else:
                yield batch[name]

    def _batches(
        self, dataset: ImageDataset, process_index: int, num_processes: int
    ) -> Iterator[dict[str, torch.Tensor]]:
        return dataset.reference_batches(self.batch_size, process_index, num_processes, self.num_samples)

    def _translations(
        self,
        generate: Generation,
        inputs: Iterable[torch.Tensor],
        reverse: bool,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> Iterator[torch.Tensor]:
        """K translations of each image, uint8 (B, K, C, H, W), which depend on the seed and the index alone."""
        indices = itertools.count(process_index, num_processes)
        for images in inputs:
            seeds = [
                derive_seed(generate.seed, "translation", index, repetition)
                for index in itertools.islice(indices, len(images))
                for repetition in range(self.num_outputs)
            ]
            yield translate(generate.pipeline, images, reverse, seeds)

    def _first(self, domain: str) -> torch.Tensor:
        """The images of a domain that are shown: the first ones."""
        images = itertools.islice(itertools.chain.from_iterable(self.images(domain)), PANEL_ROWS)
        return torch.stack(list(images))

    def _shown(self, generate: Generation, images: torch.Tensor, reverse: bool = False) -> torch.Tensor:
        return next(self._translations(generate, [images], reverse))

    def panel(self, generate: Generation) -> Image.Image:
        """Rows of input, outputs and truth; or with two generators, for each direction: input, output, and the output
        translated back."""
        first, second = self._first("A"), self._first("B")
        forward = self._shown(generate, first)
        if generate.pipeline.reverse_generator is None:
            outputs = [("output", images) for images in forward.unbind(dim=1)]
            columns = [("input", first), *outputs, ("truth", second)]
        else:
            forward, backward = forward[:, 0], self._shown(generate, second, reverse=True)[:, 0]
            columns = [
                ("A", first),
                (FORWARD, forward),
                ("and back", self._shown(generate, forward, reverse=True)[:, 0]),
                ("B", second),
                (BACKWARD, backward),
                ("and back", self._shown(generate, backward)[:, 0]),
            ]
        titles, images = zip(*columns, strict=True)
        count = min(map(len, images))
        cells = torch.stack([column[:count] for column in images], dim=1)
        return sample_grid(cells.flatten(0, 1), len(columns), list(titles))


def translate(pipeline, images: torch.Tensor, reverse: bool, seeds: Sequence[int]) -> torch.Tensor:
    """K translations of each image, by B * K seeds: from uint8 (B, C, H, W) to uint8 (B, K, C, H, W) on the CPU."""
    count = len(seeds) // len(images)
    outputs = pipeline(
        images,
        reverse=reverse,
        num_images_per_input=count,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="pt",
    ).images
    return outputs.mul(255).round().to("cpu", torch.uint8).unflatten(0, (-1, count))
