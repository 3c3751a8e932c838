"""The scale of an autoencoder's latents, which a diffusion model expects to have about unit variance.

Rombach et al. 2022, appendix G: latents are multiplied by the autoencoder's `scaling_factor`, the reciprocal of their
standard deviation over a data set.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from diffusers_ext.data import ImageDataset
from diffusers_ext.pipelines.latent_space import LatentSpace
from diffusers_ext.pixels import to_pixel_values
from diffusers_ext.training.loop.context import Context


MEASURED_IMAGES = 1000


@dataclass
class LatentStatistics:
    """Moments of the latents of a set of images.

    Attributes:
        mean, mean_square (`torch.Tensor` of shape (C,), float64): of each channel's values and of their squares.
        num_images (`int`): how many images were encoded.
    """

    mean: torch.Tensor
    mean_square: torch.Tensor
    num_images: int

    @property
    def std(self) -> float:
        """The standard deviation of all values together."""
        return (self.mean_square.mean() - self.mean.mean().square()).clamp(min=0).sqrt().item()

    @property
    def channel_std(self) -> torch.Tensor:
        """The standard deviation of each channel's values, float64 of shape (C,)."""
        return (self.mean_square - self.mean.square()).clamp(min=0).sqrt()

    def as_a_whole(self) -> dict | None:
        """The `scaling_factor` in an autoencoder's configuration; `None` if all latents are equal.

        Numbers are rounded, so that rounding errors, which depend on the batch size, do not change a published file.
        """
        return {"scaling_factor": _rounded(1 / self.std)} if self.std > 0 else None

    def by_channel(self) -> dict | None:
        """`latents_mean` and `latents_std` of an autoencoder's configuration; `None` if a channel has one value only.

        Diffusers computes latents as (z - latents_mean) / latents_std * scaling_factor, so the factor is 1 here.
        """
        stds = self.channel_std.tolist()
        if min(stds) == 0:
            return None
        return {
            "latents_mean": [_rounded(value) for value in self.mean.tolist()],
            "latents_std": [_rounded(value) for value in stds],
            "scaling_factor": 1.0,
        }


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def latent_moments(autoencoder: torch.nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of each latent, and the mean of its square over all draws of the posterior, in float64.

    Args:
        autoencoder: one that [`LatentSpace`] takes. Latents that have no posterior are their own mean. A VQModel's are
            those before the quantization, in which latent diffusion works.
        images (`torch.Tensor` of shape (N, C, H, W)): in [-1, 1].

    Returns:
        `tuple`: two tensors of the latents' shape (N, C', ...).
    """
    space = LatentSpace(autoencoder)
    moments = space.encode_moments(images).double()
    if moments.shape[1] == space.channels:
        return moments, moments.square()
    posterior = DiagonalGaussianDistribution(moments)
    return posterior.mean, posterior.mean.square() + posterior.var


def measure_autoencoder(
    autoencoder: torch.nn.Module, dataset: ImageDataset, batch_size: int, context: Context
) -> LatentStatistics:
    """The statistics of an autoencoder's latents over the first `MEASURED_IMAGES` images of a set."""
    batches = dataset.reference_batches(batch_size, limit=MEASURED_IMAGES, **context.share)
    images = (to_pixel_values(batch["pixel_values"]) for batch in batches)
    return measure_latents(lambda batch: latent_moments(autoencoder, batch), images, context)


@torch.no_grad()
def measure_latents(
    moments: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    batches: Iterable[torch.Tensor],
    context: Context,
) -> LatentStatistics:
    """The statistics of latents over the images of all processes, of which only two numbers per channel are kept.

    Args:
        moments (`Callable`): from images to the means and mean squares of their latents, such as [`latent_moments`]
            of an autoencoder.
        batches (`Iterable[torch.Tensor]`): this process's images, those with index % num_processes == process_index.
        context ([`Context`]): the device and the other processes.

    Raises:
        ValueError: if a process has no images.
    """
    rows = []
    for images in batches:
        per_image = [values.flatten(2).mean(dim=2) for values in moments(images.to(context.device))]
        rows.append(torch.stack(per_image, dim=1))
    # By image and in order, so that the sum does not depend on the number of processes.
    gathered = context.gather_rows(rows)
    mean, mean_square = gathered.mean(dim=0)
    return LatentStatistics(mean, mean_square, len(gathered))
