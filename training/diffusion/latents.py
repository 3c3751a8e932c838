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
from diffusers_ext.training.diffusion.encoding_cache import MomentCache
from diffusers_ext.training.diffusion.latent_statistics import MEASURED_IMAGES, measure_autoencoder
from diffusers_ext.training.loop.configuration import Config, TrainingConfig, option
from diffusers_ext.training.loop.context import Context
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.weights import weights_fingerprint


logger = logging.getLogger(__name__)

# The components of a pipeline that can be its autoencoder.
AUTOENCODERS = ("vae", "vqvae", "autoencoder")


@dataclass
class EncodingConfig(Config):
    """How often images are encoded."""

    option_group = "speed"

    cache_latents: bool = option(False, help="Encode each image once, and keep its latents on the disk.")
    latent_cache_dir: str | None = option(help="The folder of this cache; by default in --output_dir.")

    def __post_init__(self):
        super().__post_init__()
        self.require_default(self.cache_latents, ("latent_cache_dir",), "is for --cache_latents, which is not set")


@dataclass
class LatentConfig(EncodingConfig):
    """In which latents a denoiser works, if not in pixels."""

    option_group = "network"

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

    def __post_init__(self):
        names = ("latent_scale", "cache_latents", "latent_cache_dir")
        self.require_default(self.vae is not None, names, "is for --vae, which is not set")
        super().__post_init__()


class Latents:
    """What a denoiser sees of images: the latents of an autoencoder, or without one the pixels.

    Args:
        vae (`ModelMixin`, *optional*): the autoencoder, which is frozen.
        size (`tuple[int, int]`), channels (`int`): height, width and channels of the images.
        context ([`Context`]): the device and the other processes.

    Attributes:
        space (`LatentSpace` or `PixelSpace`): encodes and decodes.
        size (`tuple[int, int]`): height and width of the latents, or of the images.

    Raises:
        ValueError: if the autoencoder is not for these images.
    """

    def __init__(self, vae: ModelMixin | None, size: tuple[int, int], channels: int, context: Context):
        self.vae, self.context = vae, context
        self.space, self.size = PixelSpace(channels), size
        if vae is not None:
            vae.requires_grad_(False).eval()
            self.space = _latent_space(vae)
            self.size = _latent_size(self.space, size, channels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what the denoiser makes."""
        return (self.space.channels, *self.size)

    @property
    def kind(self) -> str:
        """What the denoiser makes, for the model card."""
        return "pixels" if self.vae is None else f"the latents of its {type(self.vae).__name__}"

    @property
    def identity(self) -> dict:
        """What a resumed run may not change, by option."""
        return {"vae": None if self.vae is None else weights_fingerprint(self.vae)}

    def prepare(self, config: TrainingConfig) -> None:
        """Move the autoencoder to its device, and open the cache; `config` has the options of [`EncodingConfig`]."""
        if self.vae is None:
            return
        self.vae.to(self.context.device)
        folder = None
        if config.cache_latents:
            folder = Path(config.latent_cache_dir or Path(config.output_dir) / "cache")
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OSError(f"--latent_cache_dir {folder} can't be made a folder: {error.strerror}.") from error
        self._moments = MomentCache(folder, self.space)

    def measure_scale(self, dataset: ImageDataset, config: TrainingConfig) -> None:
        """Set the scale of the latents as [`LatentConfig`] says. All processes call it, after `prepare`."""
        if config.latent_scale == "model":
            return
        statistics = measure_autoencoder(self.vae, dataset, config.evaluation_batch_size, self.context)
        per_channel = config.latent_scale == "per_channel"
        measured = statistics.by_channel() if per_channel else statistics.as_a_whole()
        if measured is None:
            raise ValueError(
                f"--latent_scale {config.latent_scale}: the latents of --vae are the same for all images."
            )
        replaced = dict.fromkeys(("shift_factor", "latents_mean", "latents_std"))
        self.vae.register_to_config(**replaced | measured)
        logger.info(f"The latents of {statistics.num_images} images give {measured}.")

    def encode(self, pixel_values: torch.Tensor, draw: Draw) -> torch.Tensor:
        """What the denoiser is to make: images (N, C, H, W) in [-1, 1], or drawn latents (N, C', h, w)."""
        if self.vae is None:
            return pixel_values
        return self.space.sample(self._moments(pixel_values), draw.normal(*self.shape))


def _latent_space(vae: ModelMixin) -> LatentSpace:
    try:
        return LatentSpace(vae)
    except ValueError as error:
        raise ValueError(str(error).replace("`vae`", "--vae")) from error


def _latent_size(space: LatentSpace, size: tuple[int, int], channels: int) -> tuple[int, int]:
    """Height and width of the latents of such images."""
    factor, name = space.pixels_per_latent, type(space.vae).__name__
    if channels != space.image_channels:
        raise ValueError(
            f"--vae encodes images of {space.image_channels} channels: --channels must be that, not {channels}."
        )
    if any(side % factor for side in size):
        raise ValueError(
            f"--resolution must be a multiple of {factor}, the pixels of a latent of --vae, not "
            f"{' '.join(map(str, size))}."
        )
    latents = tuple(side // factor for side in size)
    with torch.no_grad():
        found = space.encode(torch.zeros(1, channels, *size))
    if tuple(found.shape) != (1, space.channels, *latents):
        raise ValueError(
            f"--vae is an {name} that makes no map of latents, but values of the shape {found.shape[1:]}."
        )
    return latents


def load_autoencoder(name: str | None, cache_dir: str | None = None) -> ModelMixin | None:
    """The autoencoder of a folder or a Hub name: of a model, or of a pipeline that has one; `None` without a name.

    Raises:
        ValueError, OSError: if there is none, or a part of its weights is missing.
    """
    if name is None:
        return None
    refuse_single_file(name, "--vae")
    try:
        index = DiffusionPipeline.load_config(name, cache_dir=cache_dir)
    except OSError:
        index = {}
    subfolder = next((part for part in AUTOENCODERS if index.get(part)), None)
    if index and subfolder is None:
        kind = index.get("_class_name")
        kind = kind[-1] if isinstance(kind, list) else kind
        raise ValueError(f"--vae {name} is a pipeline without an autoencoder: {kind}.")
    place = {"cache_dir": cache_dir, **({} if subfolder is None else {"subfolder": subfolder})}
    try:
        class_name = AutoencoderKL.load_config(name, **place).get("_class_name")
        model_class = getattr(diffusers_ext, str(class_name), None) or getattr(diffusers, str(class_name), None)
        if model_class is None:
            raise ValueError(
                f"--vae {name} is of the class {class_name}, which diffusers_ext and diffusers don't have."
            )
        model, report = model_class.from_pretrained(name, **place, output_loading_info=True)
    except OSError as error:
        raise OSError(f"--vae {name} can't be loaded: {' '.join(str(error).split())}") from error
    if report["missing_keys"]:
        raise ValueError(
            f"--vae {name} lacks {len(report['missing_keys'])} of its weights, among them "
            f"{sorted(report['missing_keys'])[0]}."
        )
    return model
