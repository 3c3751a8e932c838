"""The autoencoder in whose latents a denoiser is trained (Rombach et al. 2022), or pixels where there is none."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import diffusers
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, ModelMixin

import diffusers_ext
from diffusers_ext.data import ImageDataset
from diffusers_ext.hub.pipeline_folders import refuse_single_file
from diffusers_ext.pipelines.latent_space import LatentSpace, PixelSpace
from diffusers_ext.pixels import to_pixel_values
from diffusers_ext.training.diffusion.encoding_cache import MomentCache
from diffusers_ext.training.diffusion.latent_statistics import latent_moments, measure_latents
from diffusers_ext.training.loop.configuration import Config, TrainingConfig, option
from diffusers_ext.training.loop.context import Context
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.weights import weights_fingerprint


logger = logging.getLogger(__name__)

MEASURED_IMAGES = 1000
# The components of a pipeline that can be its autoencoder.
AUTOENCODERS = ("vae", "vqvae", "autoencoder")


@dataclass
class LatentConfig(Config):
    """In which latents a denoiser works, if not in pixels."""

    vae: str | None = option(
        help="Work in the latents of this autoencoder (AutoencoderKL, VQModel, AutoencoderTiny, AutoencoderDC, or one "
        "of train_autoencoder.py): a folder or a Hub name of a model, or of a pipeline that has one."
    )
    latent_scale: Literal["model", "measured", "per_channel"] = option(
        "model",
        help="How latents are brought to unit variance: as the configuration of --vae says, or by the standard "
        f"deviation of the first {MEASURED_IMAGES} images, of all values or of each channel; what is measured is "
        "published with the model.",
    )
    cache_latents: bool = option(False, help="Encode each image once, and keep the result on the disk.")
    latent_cache_dir: str | None = option(help="The folder of this cache; by default in --output_dir.")

    def __post_init__(self):
        super().__post_init__()
        self.require_default(
            self.vae is not None,
            ("latent_scale", "cache_latents", "latent_cache_dir"),
            "is for --vae, which is not set",
        )
        self.require_default(self.cache_latents, ("latent_cache_dir",), "is for --cache_latents, which is not set")


class Latents:
    """What a denoiser sees of images: the latents of `--vae`, or without one the pixels.

    Args:
        config (`TrainingConfig` and [`LatentConfig`]): the options.
        context ([`Context`]): the device.

    Attributes:
        space (`LatentSpace` or `PixelSpace`): encodes and decodes.
        vae (`ModelMixin`, *optional*): the autoencoder, frozen.
        size (`tuple[int, int]`): height and width of the latents, or of the images.

    Raises:
        ValueError, OSError: if the autoencoder does not exist, or is not for these images.
    """

    def __init__(self, config: TrainingConfig, context: Context):
        self.config, self.context, self.vae = config, context, None
        self.space, self.size = PixelSpace(config.channels), config.size
        if config.vae is not None:
            self.vae = load_autoencoder(config.vae, config.cache_dir).requires_grad_(False).eval()
            self.space = LatentSpace(self.vae)
            self.size = self._check_images()

    def _check_images(self) -> tuple[int, int]:
        config, factor = self.config, self.space.pixels_per_latent
        if config.channels != self.space.image_channels:
            raise ValueError(
                f"--vae {config.vae} encodes images of {self.space.image_channels} channels: --channels must be that, "
                f"not {config.channels}."
            )
        if any(side % factor for side in config.size):
            raise ValueError(
                f"--resolution must be a multiple of {factor}, the pixels of a latent of --vae {config.vae}, not "
                f"{' '.join(map(str, config.resolution))}."
            )
        size = tuple(side // factor for side in config.size)
        with torch.no_grad():
            found = self.space.encode(torch.zeros(1, config.channels, *config.size))
        if tuple(found.shape) != (1, self.space.channels, *size):
            raise ValueError(f"--vae {config.vae} makes no map of latents, but values of the shape {found.shape[1:]}.")
        return size

    @property
    def kind(self) -> str:
        """What the denoiser makes, for the model card."""
        return "pixels" if self.vae is None else f"the latents of an {type(self.vae).__name__}"

    @property
    def identity(self) -> dict:
        """What a resumed run may not change, by option."""
        if self.vae is None:
            return {"vae": None}
        return {"vae": weights_fingerprint(self.vae), "latent_scale": self.config.latent_scale}

    def prepare(self, dataset: ImageDataset) -> None:
        """Move the autoencoder to its device, measure its latents, and open the cache. All processes call it."""
        if self.vae is None:
            return
        config = self.config
        self.vae.to(self.context.device)
        if config.latent_scale != "model":
            self._measure_scale(dataset)
        folder = config.latent_cache_dir or str(Path(config.output_dir) / "cache")
        self._moments = MomentCache(folder if config.cache_latents else None, self.space)

    def _measure_scale(self, dataset: ImageDataset) -> None:
        batches = dataset.reference_batches(
            self.config.evaluation_batch_size, limit=MEASURED_IMAGES, **self.context.share
        )
        statistics = measure_latents(
            lambda images: latent_moments(self.vae, images),
            (to_pixel_values(batch["pixel_values"]) for batch in batches),
            self.context,
        )
        # Rounded, so that rounding errors, which depend on the batch size, do not change the published file.
        if self.config.latent_scale == "measured":
            measured = {"scaling_factor": _rounded(1 / statistics.std), "latents_mean": None, "latents_std": None}
        else:
            mean, std = (list(map(_rounded, row.tolist())) for row in (statistics.mean, statistics.channel_std))
            measured = {"scaling_factor": 1.0, "latents_mean": mean, "latents_std": std}
        self.vae.register_to_config(**measured | {"shift_factor": None})
        logger.info(f"The latents of {statistics.num_images} images give {measured}.")

    def encode(self, pixel_values: torch.Tensor, draw: Draw) -> torch.Tensor:
        """What the denoiser is to make: images (N, C, H, W) in [-1, 1], or drawn latents (N, C', h, w)."""
        if self.vae is None:
            return pixel_values
        moments = self._moments(pixel_values)
        return self.space.sample(moments, draw.normal(*self.space_shape))

    @property
    def space_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what the denoiser makes."""
        return (self.space.channels, *self.size)


def load_autoencoder(name: str, cache_dir: str | None = None) -> ModelMixin:
    """The autoencoder of a folder or a Hub name: of a model, or of a pipeline that has one.

    Raises:
        ValueError, OSError: if there is none, or a part of its weights is missing.
    """
    refuse_single_file(name, "--vae")
    try:
        index = DiffusionPipeline.load_config(name, cache_dir=cache_dir)
    except OSError:
        index = {}
    subfolder = next((part for part in AUTOENCODERS if index.get(part)), None)
    if index and subfolder is None:
        raise ValueError(f"--vae {name} is a {index.get('_class_name')}, which has no autoencoder.")
    place = {"cache_dir": cache_dir, **({} if subfolder is None else {"subfolder": subfolder})}
    class_name = AutoencoderKL.load_config(name, **place).get("_class_name")
    model_class = getattr(diffusers_ext, str(class_name), None) or getattr(diffusers, str(class_name), None)
    if model_class is None:
        raise ValueError(f"--vae {name} is a {class_name}, which neither diffusers_ext nor diffusers has.")
    model, report = model_class.from_pretrained(name, **place, output_loading_info=True)
    if report["missing_keys"]:
        raise ValueError(
            f"--vae {name} lacks {len(report['missing_keys'])} of its weights, among them "
            f"{sorted(report['missing_keys'])[0]}."
        )
    return model


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
