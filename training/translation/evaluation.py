"""How well images are translated: next to the truth where images are paired, else as a set; and what it looks like."""

import itertools
import math
from collections.abc import Iterator

import torch
from accelerate import PartialState
from PIL import Image
from tqdm.auto import tqdm

from diffusers_ext.data import ImageDataset
from diffusers_ext.data.transforms import to_pixel_values
from diffusers_ext.data.unpaired import UnpairedImageDataset
from diffusers_ext.metrics import compute_metrics, load_feature_extractor
from diffusers_ext.metrics.compute import check_measurable
from diffusers_ext.metrics.perceptual import as_uint8
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.evaluation.pairs import PairedMeasures
from diffusers_ext.training.loop.sampling import Generation, gather_features
from diffusers_ext.training.translation.inputs import MadeInputs


PANEL_ROWS = 6
FORWARD, BACKWARD = "A to B", "B to A"


class TranslationEvaluator:
    """Measures and shows what an [`ImageTranslationPipeline`] makes of the images of a data set.

    Domain A is translated to domain B. Of a paired set A are the conditioning images, of an unpaired one the images of
    the first domain.

    Args:
        config ([`TranslationConfig`]): what is measured, and how.
        dataset ([`ImageDataset`] or [`UnpairedImageDataset`]): the images; best such as were not trained on.
        make_inputs ([`MadeInputs`] or `None`): makes A of B, where the data set has neither.
        is_swapped (`bool`): whether A and B have changed places.
        split (`str`): the name of their split, put beside the numbers.

    Raises:
        ValueError, OSError, ImportError: if a feature extractor or a distance can't be had, or is of no use for such
            images.
    """

    def __init__(
        self,
        config,
        dataset: ImageDataset | UnpairedImageDataset,
        make_inputs: MadeInputs | None,
        is_swapped: bool,
        split: str,
    ):
        self.config, self.dataset, self.make_inputs = config, dataset, make_inputs
        self.is_swapped, self.split = is_swapped, split
        self.is_paired = not isinstance(dataset, UnpairedImageDataset)
        self.extractor = None
        if config.feature_extractor is not None:
            self.extractor = load_feature_extractor(config.feature_extractor, device=PartialState().device)
            sizes = [part.num_examples or math.inf for part in self._domains()]
            count = min(config.num_evaluation_samples, *sizes)
            check_measurable(self.extractor, (dataset.channels, *dataset.resolution), config.metrics, count, count)
        self.measure = PairedMeasures(config.metrics, dataset, self.extractor) if self.is_paired else None

    def _domains(self) -> list[ImageDataset]:
        """The data sets that images come from."""
        return [self.dataset] if self.is_paired else [self.dataset.source, self.dataset.target]

    def __call__(self, generate: Generation) -> list[dict]:
        """Measure a pipeline: a row per direction; none where nothing is asked for."""
        if self.config.metrics is None and self.extractor is None:
            return []
        directions = [False] if generate.pipeline.reverse_generator is None else [False, True]
        return [self._row(generate, reverse) for reverse in directions]

    def _row(self, generate: Generation, reverse: bool) -> dict:
        accelerator, task = generate.accelerator, BACKWARD if reverse else FORWARD
        share = {"process_index": accelerator.process_index, "num_processes": accelerator.num_processes}
        inputs = tqdm(
            self.images("B" if reverse else "A", **share),
            f"Translating {task}",
            disable=not accelerator.is_local_main_process,
        )
        outputs = (translate(generate.pipeline, images, reverse) for images in inputs)
        wanted = self.images("A" if reverse else "B", **share)
        if self.is_paired:
            values = self.measure(wanted, outputs, accelerator)
        else:
            values = compute_metrics(
                gather_features(self.extractor, wanted, accelerator),
                gather_features(self.extractor, outputs, accelerator),
                self.config.metrics,
                extractor=self.extractor,
            )
        return {"task": task, **values, "provenance": {**values["provenance"], "split": self.split}}

    def images(self, domain: str, process_index: int = 0, num_processes: int = 1) -> Iterator[torch.Tensor]:
        """The images of domain "A" or "B", uint8 (B, C, H, W), this process's share of the first that are measured."""
        is_first = (domain == "A") != self.is_swapped
        dataset, name = self.dataset, "conditioning_pixel_values" if is_first else "pixel_values"
        if not self.is_paired:
            dataset, name = (dataset.source if is_first else dataset.target), "pixel_values"
        batches = dataset.reference_batches(
            self.config.evaluation_batch_size, process_index, num_processes, self.config.num_evaluation_samples
        )
        indices = itertools.count(process_index, num_processes)
        for batch in batches:
            if is_first and self.make_inputs is not None:
                images, own = batch["pixel_values"], list(itertools.islice(indices, len(batch["pixel_values"])))
                yield as_uint8(self.make_inputs.of(to_pixel_values(images), own))
            else:
                yield batch[name]

    def _first(self, domain: str) -> torch.Tensor:
        """The first images of a domain, or fewer if it has no more."""
        images = itertools.islice(itertools.chain.from_iterable(self.images(domain)), PANEL_ROWS)
        return torch.stack(list(images))

    def panel(self, generate: Generation) -> Image.Image:
        """Inputs, outputs and truth; of both directions inputs, outputs, and what the way back makes of them."""
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
    """Translations of uint8 images (B, C, H, W), likewise, on the CPU."""
    outputs = pipeline(images, reverse=reverse, output_type="pt").images
    return outputs.mul(255).round().to("cpu", torch.uint8)
