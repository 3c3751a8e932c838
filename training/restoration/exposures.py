"""Overexposed photographs of known light, and how well what they lost is recovered."""

import itertools
from collections.abc import Callable, Iterator

import torch
from PIL import Image

from diffusers_ext.data import ImageDataset, derive_seed
from diffusers_ext.data.corruptions.levels import round_levels
from diffusers_ext.pipelines.light import GAMMA, compress_light
from diffusers_ext.pixels import as_uint8, to_pixel_values
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.loop.context import Context
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.sampling import Generation


SMALLEST_LIGHT = 1 / 255**GAMMA  # below, logarithms tell nothing: it is less than a level of an image file
PANEL_ROWS = 4


def overexpose(images: torch.Tensor, stops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The light of photographs, and the same photographs with too long an exposure.

    Args:
        images: (N, C, H, W) in [-1, 1]; their light is the value in [0, 1] to the power of 2.2.
        stops: by how many factors of 2 each is overexposed, (N,).

    Returns:
        The light (N, C, H, W) in [0, 2^stops], and images in [0, 1] of 256 levels, white where the light is above 1.
    """
    light = (images.float() / 2 + 0.5).clamp(0, 1) ** GAMMA * 2 ** stops.view(-1, 1, 1, 1)
    return light, round_levels(light.clamp(max=1) ** (1 / GAMMA) * 255) / 255


class ExposureEvaluator:
    """Measures and shows what a [`RestorationPipeline`] with a `peak` makes of overexposed photographs.

    The exposure of image i depends only on the seed and on i.

    Args:
        dataset (`ImageDataset`): the photographs, preferably ones that were not trained on.
        context (`Context`): the device and the other processes.
        stops (`tuple[float, float]`): the least and the most overexposure.
        split (`str`): the name of their split, reported beside the measures.
        seed (`int`): of the exposures.
        metrics (`list[str]`, *optional*): what is measured, of `log_error` and `psnr_mu`; nothing by default.
        num_samples (`int`): how many images are measured.
        batch_size (`int`): images per process and call of the pipeline.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        context: Context,
        *,
        stops: tuple[float, float],
        split: str,
        seed: int,
        metrics: list[str] | None,
        num_samples: int,
        batch_size: int,
    ):
        self.dataset, self.context, self.stops, self.split, self.seed = dataset, context, stops, split, seed
        self.metrics, self.num_samples, self.batch_size = metrics, num_samples, batch_size

    def __call__(self, generate: Generation) -> list[dict]:
        """Two rows: the overexposed photograph, and its restoration."""
        if self.metrics is None:
            return []
        methods = {"input": lambda shown: shown**GAMMA, "model": lambda shown: restored_light(generate, shown)}
        return [{"method": name, **self._measures(name, method)} for name, method in methods.items()]

    def _measures(self, name: str, method: Callable[[torch.Tensor], torch.Tensor]) -> dict:
        pairs = self.context.progress(self._pairs(**self.context.share), f"overexposed: {name}")
        rows = self.context.gather_rows(
            [light_errors(method(shown), light, shown, 2 ** self.stops[1]) for light, shown in pairs]
        )
        clipped = rows[rows[:, 1] > 0]
        values = {
            "log_error": (clipped[:, 0].sum() / clipped[:, 1].sum()).item() if len(clipped) else None,
            "psnr_mu": rows[:, 2].mean().item(),
        }
        provenance = {"split": self.split, "exposure_seed": self.seed, "num_images": len(rows)}
        return {**{metric: values[metric] for metric in self.metrics}, "provenance": provenance}

    def _pairs(self, process_index: int = 0, num_processes: int = 1) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Light and overexposed photographs in batches: a process's share, or all."""
        indices = itertools.count(process_index, num_processes)
        seed = derive_seed(self.seed, "exposure")
        low, high = self.stops
        for batch in self.dataset.reference_batches(self.batch_size, process_index, num_processes, self.num_samples):
            images = to_pixel_values(batch["pixel_values"])
            draw = Draw(seed, torch.device("cpu")).begin(0, list(itertools.islice(indices, len(images))))
            yield overexpose(images, low + (high - low) * draw.uniform())

    def panel(self, generate: Generation) -> Image.Image:
        """Rows of the overexposed photograph, the same less exposed, its restoration, and the truth.

        All but the first column are shown as if exposed for the brightest light.
        """
        light, shown = (images[:PANEL_ROWS] for images in next(self._pairs()))
        brightest = light.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1)
        cells = [shown] + [
            (image / brightest).clamp(0, 1) ** (1 / GAMMA)
            for image in (shown**GAMMA, restored_light(generate, shown), light)
        ]
        titles = ["input", "darker", "output", "truth"]
        return sample_grid(as_uint8(torch.stack(cells, dim=1).flatten(0, 1) * 2 - 1), len(titles), titles)


def restored_light(generate: Generation, shown: torch.Tensor) -> torch.Tensor:
    """The light that the pipeline makes of images in [0, 1], on the CPU."""
    return generate.pipeline(shown, output_type="pt").images.cpu()


def light_errors(made: torch.Tensor, light: torch.Tensor, shown: torch.Tensor, peak: float) -> torch.Tensor:
    """Errors of light beside the true one.

    Args:
        made, light, shown: the light of a restoration, the true light, and what was shown, all (N, C, H, W).
        peak: the brightest light of the mu-law.

    Returns:
        (N, 3): the sum of the absolute errors in stops (base-2 logarithms) over the values that were clipped, how
        many these are, and the PSNR of the light by the mu-law.
    """
    is_clipped = (shown >= 1) & (light > 1)
    stops = (made.clamp(min=SMALLEST_LIGHT) / light.clamp(min=SMALLEST_LIGHT)).log2().abs()
    squared = (compress_light(made, peak) - compress_light(light, peak)).square().flatten(1).mean(dim=1)
    counted = (stops * is_clipped).flatten(1).sum(dim=1), is_clipped.flatten(1).sum(dim=1)
    return torch.stack([*counted, -10 * squared.clamp(min=1e-12).log10()], dim=1)
