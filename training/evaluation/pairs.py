"""Measuring images one by one, each beside the true image that it should equal."""

from collections.abc import Iterable

import torch

from diffusers_ext.data import ImageDataset
from diffusers_ext.metrics import METRICS
from diffusers_ext.metrics.extractors import FeatureExtractor
from diffusers_ext.metrics.perceptual_distances import LPIPS, DeepFeatureDistance
from diffusers_ext.metrics.restoration import restoration_metrics
from diffusers_ext.metrics.similarity import SSIM_WINDOW_SIZE
from diffusers_ext.training.loop.context import Context


class PairedMeasures:
    """Compares images with the true ones; the networks of the measures are loaded once.

    Args:
        metrics (`list[str]` or `None`): names, see [`restoration_metrics`]; by default all that are possible.
        dataset (`ImageDataset`): the true images.
        extractor (`FeatureExtractor`, *optional*): the feature network and classifier.
        device (`torch.device`): where the networks of distances run.

    Raises:
        ValueError, OSError, ImportError: if a distance is not available, or a measure can't be used for these images.
    """

    def __init__(
        self,
        metrics: list[str] | None,
        dataset: ImageDataset,
        extractor: FeatureExtractor | None,
        device: torch.device,
    ):
        self.metrics, self.dataset, self.extractor = metrics, dataset, extractor
        named = metrics or ()
        self.distances = [LPIPS(device=device)] if "lpips" in named else []
        if "deep_feature_distance" in named:
            self.distances.append(DeepFeatureDistance(extractor))
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
