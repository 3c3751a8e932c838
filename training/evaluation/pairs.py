"""Measuring images one by one, each beside the true image that it should equal."""

import math
from collections.abc import Iterable

import torch

from diffusers_ext.data import ImageDataset
from diffusers_ext.metrics import METRICS
from diffusers_ext.metrics.perceptual_distances import LPIPS, DeepFeatureDistance
from diffusers_ext.metrics.restoration import restoration_metrics
from diffusers_ext.metrics.similarity import SSIM_WINDOW_SIZE
from diffusers_ext.training.evaluation.measurable import load_measuring_extractor
from diffusers_ext.training.loop.context import Context


class PairedMeasures:
    """Compares images with the true ones; the networks of the measures are loaded once.

    Args:
        metrics (`list[str]` or `None`): names, see [`restoration_metrics`]; by default all that are possible.
        dataset (`ImageDataset`): the true images.
        feature_extractor (`str`, *optional*): the feature network and classifier; see [`load_feature_extractor`].
        num_samples (`int`): how many images are measured, if there are as many.
        device (`torch.device`): where the networks run.

    Raises:
        ValueError, OSError, ImportError: if a network is not available, or a measure can't be used for these images.
    """

    def __init__(
        self,
        metrics: list[str] | None,
        dataset: ImageDataset,
        *,
        feature_extractor: str | None,
        num_samples: int,
        device: torch.device,
    ):
        self.metrics, self.dataset = metrics, dataset
        count = min(num_samples, dataset.num_examples or math.inf)
        shape = (dataset.channels, *dataset.resolution)
        self.extractor = load_measuring_extractor(
            feature_extractor, metrics, shape=shape, num_real=count, num_generated=count, device=device
        )
        named = metrics or ()
        if "accuracy" in named and dataset.id2label is None:
            raise ValueError("--metrics accuracy needs images with labels: name their column with --label_column.")
        self.distances = [LPIPS(device=device)] if "lpips" in named else []
        if "deep_feature_distance" in named:
            self.distances.append(DeepFeatureDistance(self.extractor))
        # A trial run: measures that these images are too small for are refused now, and not after the training.
        blank = torch.zeros(2, dataset.channels, *dataset.resolution, dtype=torch.uint8)
        of_one_image = [name for name in named if name not in (*METRICS, "diversity")]
        self._compare([blank], [blank], of_one_image or ["psnr"])

    def __call__(
        self, truth: Iterable[torch.Tensor], outputs: Iterable[torch.Tensor], context: Context, **options
    ) -> dict:
        """The measures of all processes' images.

        Args:
            truth, outputs: iterables of batches, this process's share.
            context (`Context`): the other processes.
            options: see [`restoration_metrics`].

        Returns:
            `dict`: the means by name, and "provenance".
        """
        values = self._compare(truth, outputs, self.metrics, gather=context.gather_rows, **options)
        values.pop("per_image")
        return values

    def class_labels(self, batches: Iterable[dict[str, torch.Tensor]]) -> torch.Tensor | None:
        """The classes of the images in batches, if a classifier measures them."""
        if self.dataset.id2label is None or self.extractor is None:
            return None
        return torch.cat([batch["class_labels"] for batch in batches])

    def _compare(self, truth, outputs, metrics, **options) -> dict:
        return restoration_metrics(
            truth,
            outputs,
            metrics,
            extractor=self.extractor,
            distances=self.distances,
            id2label=self.dataset.id2label,
            ssim_window_size=ssim_window(self.dataset.resolution),
            **options,
        )


def ssim_window(size: tuple[int, int]) -> int:
    """The side of SSIM's window, or of the largest one that fits into images of this size."""
    side = min(size)
    return max(3, min(SSIM_WINDOW_SIZE, side - 1 + side % 2))
